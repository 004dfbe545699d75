"""The handover of a decommission: other members take over the content, documents and manifest bodies that an instance
holds.

Members that are leaving themselves are not relied on.
"""

import asyncio

from registry.catalog.catalog import Catalog
from registry.catalog.collection import linked_content, referenced_bodies
from registry.cluster.membership.members import Member, Members
from registry.cluster.placement.rendezvous import ranked, spread
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import (
    BodiesRequest,
    BodiesResponse,
    ReplicateBlobRequest,
    ReplicateBlobResponse,
    UpdatesRequest,
    UpdatesResponse,
)
from registry.cluster.transfer.blob_reader import BlobReader
from registry.oci.names import Digest
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.leave")

PAGE = 200
RETRY_S = 2.0
REQUEST_TIMEOUT_S = 6.0
MAX_EXAMPLES = 20
"""Number of contents to name among those that no member takes: enough to see what they have in common."""


class ContentHandover:
    """The handover of one instance, and what it has come to."""

    def __init__(
        self, catalog: Catalog, blob_reader: BlobReader, members: Members, peers: PeerClient, anti_entropy: AntiEntropy
    ) -> None:
        self._catalog = catalog
        self._blob_reader = blob_reader
        self._members = members
        self._peers = peers
        self._anti_entropy = anti_entropy
        self.handed_over = 0
        self.left = 0
        """Number of contents that the last pass could not hand over: no other member held them or took them."""
        self.remaining_bytes = 0
        self.examples: list[Digest] = []
        """Some of those contents."""
        self.refused_by: dict[str, str] = {}
        """Instances that took no content when they were last asked, each with the reason."""

    async def hand_over_content(self) -> None:
        """Return once other members hold all linked content that is held here."""
        while True:
            await self._pass()
            if not self.left and self._members.reachable():
                return
            await asyncio.sleep(RETRY_S)

    async def hand_over_documents(self) -> None:
        """Return once a member that stays has all documents and manifest bodies that are here."""
        while not await self._hand_over_documents_once():
            await asyncio.sleep(RETRY_S)

    async def _hand_over_documents_once(self) -> bool:
        """Bring all documents and manifest bodies to one member that stays. Return whether that succeeded."""
        for one in self._members.replica_candidates():
            member = self._members.get(one.instance)
            if member is not None and member.reachable and await self._anti_entropy.merkle_diff(member):
                try:
                    await self._give_bodies(member)
                    if await self._peers.stays(member, REQUEST_TIMEOUT_S):
                        return True
                except PeerUnreachable as error:
                    self._refused(member, "all that is known here", str(error))
        return False

    async def _give_bodies(self, member: Member) -> None:
        """Send a member the manifest bodies that it lacks: it may not get to fetch them in time. Raises
        PeerUnreachable."""
        last = ""
        while page := await referenced_bodies(self._catalog.database, last, PAGE):
            answer = await self._peers.ask(
                member, "/bodies", BodiesRequest(list(page)), BodiesResponse, REQUEST_TIMEOUT_S
            )
            for digest in sorted(set(page) - set(answer.held)):
                body = self._catalog.queries.body(digest)
                if body is not None:
                    await self._peers.ask(
                        member, "/updates", UpdatesRequest([], {}, [body]), UpdatesResponse, REQUEST_TIMEOUT_S
                    )
            last = page[-1]

    async def _pass(self) -> None:
        """Hand over the content that only this instance holds, and note what is left of it."""
        await self._blob_reader.quarantine_pending()
        left, last = [], ""
        while page := await linked_content(self._catalog.database, last, PAGE):
            for digest, size in page:
                if not await self._is_kept(digest):
                    if await self._give(digest, size):
                        self.handed_over += 1
                    else:
                        left.append((digest, size))
            last = page[-1].digest
        self.left, self.remaining_bytes = len(left), sum(size for _, size in left)
        self.examples = [digest for digest, _ in left[:MAX_EXAMPLES]]

    async def _is_kept(self, digest: Digest) -> bool:
        """Return whether a member that stays holds a content."""
        log.debug(LogEvent.DECOMMISSION_HOLDERS_REQUESTED, "asking who else holds %(digest)s", digest=digest)
        requests = [asyncio.create_task(self._keeps(member, digest)) for member in self._members.reachable()]
        try:
            for answer in asyncio.as_completed(requests):
                if await answer:
                    return True
        finally:
            for task in requests:
                task.cancel()
        return False

    async def _keeps(self, member: Member, digest: Digest) -> bool:
        try:
            return await self._peers.keeps(member, digest, REQUEST_TIMEOUT_S, retain=True)
        except PeerUnreachable:
            return False

    async def _give(self, digest: Digest, size: int) -> bool:
        """Have another member take a content. Return False when none takes it now."""
        for one in spread(ranked(digest, self._members.replica_candidates())):
            member = self._members.get(one.instance)
            if (
                member is not None
                and member.reachable
                and await self._is_taken(member, ReplicateBlobRequest(digest, size))
            ):
                return True
        return False

    async def _is_taken(self, member: Member, request: ReplicateBlobRequest) -> bool:
        try:
            while True:
                answer = await self._peers.ask(
                    member, "/replicate-blob", request, ReplicateBlobResponse, REQUEST_TIMEOUT_S
                )
                if answer.held:
                    self.refused_by.pop(member.instance, None)
                    return True
                if not answer.in_progress:
                    self._refused(member, request.digest, answer.reason or "it does not say why")
                    return False
        except PeerUnreachable as error:
            self._refused(member, request.digest, str(error))
            return False

    def _refused(self, member: Member, what: str, reason: str) -> None:
        """Note why a member does not take something over. One that goes on refusing is one line in the log."""
        if self.refused_by.get(member.instance) != reason:
            log.warning(
                LogEvent.DECOMMISSION_HANDOFF_REJECTED,
                "%(member)s did not take %(content)s: %(reason)s",
                member=member.shown,
                content=what,
                reason=reason,
            )
        self.refused_by[member.instance] = reason

"""Manifest bodies that facts refer to and no frame brought.

They are fetched at once, many with one request when many are missing, so that every instance can serve every tag when
the instance that took the push is gone. Bodies that no member gives are looked for again in rounds. In the other
direction, a body that no frame can carry is sent to a member before the push is answered.
"""

import asyncio
import contextlib
from functools import partial

from crdt.catchup import Report, exchange_now
from crdt.change import Change
from crdt.errors import CrdtError
from crdt.revisions import encode_revisions
from crdt.vector import Vector
from registry.catalog.catalog import Catalog
from registry.catalog.incoming import store_missing_body
from registry.catalog.repository import drop_wrong_body
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.frame_sender import fits_a_frame, is_large
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import ManifestsRequest, ManifestsResponse, UpdatesRequest, UpdatesResponse
from registry.cluster.transfer.locator import Locator
from registry.errors import StorageFailed
from registry.oci.manifest import MAX_MANIFEST_BYTES
from registry.oci.names import Digest, algorithm_of, digest_of
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.bodies")

ROUND_INTERVAL_S = 5.0
FETCHES_AT_ONCE = 16
BATCH_SIZE = 200
BATCH_TIMEOUT_S = 2.0  # within a round, so that others are asked where this one hangs
MIN_BATCH = 8
DEPOSIT_TRIES = 3
DEPOSIT_TIMEOUT_S = 10.0
SMALL_DEPOSIT_TIMEOUT_S = 1.5
"""For a small change that no frame carries: an operator at a site that is cut off must not wait for the others."""


class ManifestBodies:
    """Fetches the manifest bodies this instance lacks, and deposits its own large ones elsewhere."""

    def __init__(
        self, catalog: Catalog, peers: PeerClient, members: Members, locator: Locator, anti_entropy: AntiEntropy
    ) -> None:
        self._catalog = catalog
        self._peers = peers
        self._members = members
        self._locator = locator
        self._anti_entropy = anti_entropy
        self._fetching: dict[Digest, asyncio.Task[bytes | None]] = {}
        self._tried: set[Digest] = set()
        """Bodies that have been looked for in this round."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for bodies to fetch now: new facts may refer to some."""
        self._wake.set()

    def on_advanced(self, document: str, vector: Vector) -> None:
        """Look for the bodies that a document names which a diff has brought forward."""
        self.wake()

    async def run(self) -> None:
        """Fetch missing bodies, for ever: each once a round, however often facts arrive."""
        loop = asyncio.get_running_loop()
        while True:
            self._tried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(loop.time() + ROUND_INTERVAL_S):
                    while True:
                        self._wake.clear()
                        await self._fetch_all()
                        await self._wake.wait()

    async def _fetch_all(self) -> None:
        wanted = [digest for digest in self._catalog.queries.missing_bodies(limit=1000) if digest not in self._tried]
        self._tried.update(wanted)
        if len(wanted) >= MIN_BATCH:
            for at in range(0, len(wanted), BATCH_SIZE):
                await self._fetch_batch(wanted[at : at + BATCH_SIZE])
            wanted = [digest for digest in wanted if not self._catalog.queries.has_body(digest)]
        for at in range(0, len(wanted), FETCHES_AT_ONCE):
            await asyncio.gather(*(self.fetch(digest) for digest in wanted[at : at + FETCHES_AT_ONCE]))

    async def _fetch_batch(self, digests: list[Digest]) -> None:
        """Fetch many bodies with few requests, each from the instance that the manifest was pushed to, or from the
        nearest where that one cannot be asked. What does not come is left to be fetched one by one."""
        nearest = next(iter(self._members.reachable()), None)
        asking: dict[str, tuple[Member, list[Digest]]] = {}
        for digest in digests:
            pushed_to = self._members.get(self._catalog.queries.pushed_to(digest) or "")
            member = pushed_to if pushed_to is not None and pushed_to.reachable else nearest
            if member is not None:
                asking.setdefault(member.instance, (member, []))[1].append(digest)
        for member, missing in asking.values():
            try:
                while missing and await self._take_batch(member, missing):
                    missing = [digest for digest in missing if not self._catalog.queries.has_body(digest)]
            except (PeerUnreachable, StorageFailed, TimeoutError) as error:
                log.info(
                    LogEvent.MANIFEST_BODIES_REQUEST_FAILED,
                    "no bodies from %(member)s at once: %(error)s",
                    member=member.shown,
                    error=error or "no answer in time",
                )

    async def _take_batch(self, member: Member, digests: list[Digest]) -> bool:
        """Keep those of some bodies that a member sends. Return whether it sent any. Raises TimeoutError, but does not
        mark the member as slow: it may send a single body in time."""
        url, request = self._members.url(member), ManifestsRequest([*digests])
        async with asyncio.timeout(BATCH_TIMEOUT_S):
            answer = await self._peers.ask_url(url, "/manifests", request, ManifestsResponse, member.instance)
        keep = (partial(store_missing_body, body=body) for body in answer.bodies)
        return any(await asyncio.gather(*map(self._catalog.database.write_in_steps, keep)))

    def close(self) -> None:
        for task in self._fetching.values():
            task.cancel()

    async def checked(self, digest: Digest, body: bytes) -> bytes | None:
        """Return a body from the catalog if it matches its digest; else None, and the body is fetched again. Raises
        StorageFailed."""
        if digest_of(body, algorithm_of(digest)) == digest:
            return body
        log.error(
            LogEvent.MANIFEST_BODY_CORRUPT,
            "the body of the manifest %(digest)s has changed; it is fetched again",
            digest=digest,
        )
        await self._catalog.database.write(partial(drop_wrong_body, digest=digest))
        self.wake()
        return None

    async def fetch(self, digest: Digest) -> bytes | None:
        """Fetch one body from a holder, once however many callers ask. Return None when no reachable member has it."""
        task = self._fetching.get(digest)
        if task is None:
            task = self._fetching[digest] = asyncio.create_task(self._fetch(digest))
            task.add_done_callback(lambda _: self._fetching.pop(digest, None))
        return await asyncio.shield(task)

    async def _fetch(self, digest: Digest) -> bytes | None:
        async for member, size in self._locator.holders(digest):
            if size > MAX_MANIFEST_BYTES:
                continue
            try:
                body = await self._receive(member, digest)
            except (PeerUnreachable, TimeoutError) as error:
                log.info(
                    LogEvent.MANIFEST_BODY_REQUEST_FAILED,
                    "no body of %(digest)s from %(member)s: %(error)s",
                    digest=digest,
                    member=member.shown,
                    error=error,
                )
                continue
            if digest_of(body, algorithm_of(digest)) != digest:
                log.error(
                    LogEvent.WRONG_BYTES_RECEIVED,
                    "%(member)s gave wrong bytes for %(digest)s",
                    member=member.shown,
                    digest=digest,
                )
                continue
            try:
                if not await self._catalog.database.write_in_steps(partial(store_missing_body, body=body)):
                    self._tried.discard(digest)  # its manifest was deleted meanwhile, and may be pushed again at once
            except StorageFailed as error:
                log.error(
                    LogEvent.MANIFEST_BODY_WRITE_FAILED, "a manifest body could not be kept: %(error)s", error=error
                )
            return body
        return None

    async def _receive(self, member: Member, digest: Digest) -> bytes:
        parts, size = [], 0
        async with asyncio.timeout(DEPOSIT_TIMEOUT_S):
            async with self._peers.stream(member, f"/content/{digest}") as response:
                if response.status != 200:
                    raise PeerUnreachable(f"{member.shown} answered {response.status}")
                async for chunk in response.chunks():
                    parts.append(chunk)
                    size += len(chunk)
                    if size > MAX_MANIFEST_BYTES:
                        raise PeerUnreachable(f"{member.shown} sent more bytes than it announced")
        return b"".join(parts)

    async def deposit(self, change: Change) -> bool:
        """Store what no frame carries at one live member. Return whether it is safe elsewhere, or was in the frame."""
        if fits_a_frame(change):
            return True
        timeout_s = DEPOSIT_TIMEOUT_S if is_large(change) else SMALL_DEPOSIT_TIMEOUT_S
        for member in self._members.reachable()[:DEPOSIT_TRIES]:
            writers = self._catalog.queries.writers_of([change.document])
            reached = encode_revisions(self._catalog.access.reached)
            updates = UpdatesRequest([(change.document, change.delta)], writers, list(change.bodies), reached)
            try:
                answer = await self._peers.ask(member, "/updates", updates, UpdatesResponse, timeout_s)
                if answer.missing_dependencies:
                    await self._anti_entropy.drive(
                        member, exchange_now(self._catalog.replica, [change.document], Report())
                    )
                    await self._peers.ask(
                        member, "/updates", UpdatesRequest([], {}, updates.bodies), UpdatesResponse, DEPOSIT_TIMEOUT_S
                    )
                log.debug(
                    LogEvent.UPDATE_DEPOSITED,
                    "left a change of %(document)s at %(member)s",
                    document=change.document,
                    member=member.shown,
                )
                return True
            except (PeerUnreachable, CrdtError, StorageFailed) as error:
                log.warning(
                    LogEvent.UPDATE_DEPOSIT_FAILED,
                    "a change could not be stored at %(member)s: %(error)s",
                    member=member.shown,
                    error=error,
                )
        return False

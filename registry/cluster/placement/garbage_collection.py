"""Garbage collection: removing unreferenced content while clients push, without a leader (mark and release).

Equal state digests everywhere would make removal safe, and never occur under load. Instead, an instance removes a
content only when

 - no live manifest here refers to it, and the body of every live manifest is here and can be read;
 - that has been so for the grace period, in running time, and no new link to it was committed meanwhile;
 - mark: every known member has answered that it does not rely on the content, and everything that those members had
   committed by then is applied here;
 - release: every known member has then dropped its links in the transaction in which it checked once more, so that no
   push there can rely on the content without uploading it again. It drops only links that the collecting instance knew
   before its first request: a client may have read a newer link at a member since that was sent;
 - all of this still holds here in the transaction that drops the row.

A member that does not answer ends the pass, since clients may have pushed to it. A member that is gone for good must be
removed first. A client that was told that a blob exists will not upload it, so the instance that told it takes a lease
on the content, and relies on what is leased. A lease that is taken after its instance has answered the mark would not
keep others from dropping the link; then the link is re-asserted, and the new link is not dropped.
"""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from registry.catalog.catalog import Catalog
from registry.catalog.collection import (
    UnreferencedContent,
    drop_bodies,
    drop_links,
    is_linked,
    is_referenced,
    links_of,
    unreadable_manifest,
    unreferenced_bodies,
    unreferenced_content,
)
from registry.catalog.content import drop_content
from registry.catalog.database import Transaction
from registry.catalog.understanding import any_not_understood
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Member, Members
from registry.cluster.placement.collection_reasons import Code, Reason
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import ReferenceRequest, ReferenceResponse, ReleaseRequest, ReleaseResponse
from registry.errors import StorageFailed
from registry.event_loop.now import now_s
from registry.event_loop.steps import Steps
from registry.oci.names import Digest, Repository, parse_digest
from registry.ports import PeerUnreachable
from registry.storage.store import BlobStore, content_path
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.collect")

T = TypeVar("T")

Links = Mapping[Digest, frozenset[bytes]]
"""Contents, and all links that the collecting instance knew before its first request, see `links_of`."""

CONTENT_LEASE_S = 3600.0
MAX_CONTENT_LEASES = 200_000
MAX_WATCHED = 1_000_000
BATCH = 500
PAGE = 1000
LOOKED_AT_A_STEP = 64
"""Contents whose links and use are looked up before the loop turns: 1 to 2 ms where each has a few links."""
REQUEST_TIMEOUT_S = 10.0
FRAMES_TIMEOUT_S = 0.5
"""Time to wait for frames that are on their way, before a round of anti-entropy brings what is missing."""
APPLIED_POLL_S = 0.01


class Decision(NamedTuple):
    """The outcome for an unreferenced content, and its reason."""

    digest: Digest
    size: int
    removed: bool
    reason: Reason
    would_be_removed: bool = False
    """True in a dry run when the content would have been removed now."""


class Report(NamedTuple):
    """The outcome of a pass."""

    decisions: list[Decision]
    bodies: int
    """Manifest bodies forgotten, or in a dry run those that would be."""
    blocked: Reason | None
    """The reason why nothing could be removed; None when the pass was not blocked."""

    @property
    def removed(self) -> int:
        return sum(one.removed for one in self.decisions)

    @property
    def removed_bytes(self) -> int:
        return sum(one.size for one in self.decisions if one.removed)


class Blocked(Exception):
    """Nothing can be removed now."""

    def __init__(self, code: Code, detail: Mapping[str, str] = MappingProxyType({})) -> None:
        self.reason = Reason(code, detail)
        super().__init__(self.reason.describe())


class GarbageCollector:
    """The garbage collection of one instance, and its answers to that of other members.

    Has more than a dozen attributes: a removal here and an answer to another member depend on the same leases and grace
    periods, in one step.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        members: Members,
        incarnation: Incarnation,
        peers: PeerClient,
        anti_entropy: AntiEntropy,
        grace_s: float,
        every_s: float,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._members = members
        self._incarnation = incarnation
        self._peers = peers
        self._anti_entropy = anti_entropy
        self._grace_s = grace_s
        self._every_s = every_s
        self._since: dict[Digest, float] = {}
        """The times, in loop time, from which on content has been unreferenced."""
        self._leases: dict[Digest, float] = {}
        """The ends of leases on content, in loop time, oldest lease first."""
        self._pending_releases: dict[Digest, set[Repository]] = {}
        """Content that others may be about to have released, since this instance has answered that it does not rely on
        it, oldest answer first. The values are the repositories in which its link was re-asserted since then for a
        client that was told that the content exists."""
        self._lock = asyncio.Lock()
        self.removed = 0
        self.removed_bytes = 0
        self.last: Report | None = None
        self.ended_at: float | None = None
        """Loop time of the end of the last pass that was no dry run."""

    # Protection of content

    def take_lease(self, digest: Digest) -> None:
        """Take a lease on content: a client was told that it exists, and may push a manifest that refers to it."""
        now = now_s()
        self._leases.pop(digest, None)
        self._leases[digest] = now + CONTENT_LEASE_S
        while len(self._leases) > MAX_CONTENT_LEASES or next(iter(self._leases.values())) < now:
            del self._leases[next(iter(self._leases))]

    def linked(self, digests: Iterable[Digest]) -> None:
        """Restart the grace period of content to which links have been committed."""
        for digest in digests:
            self._since.pop(digest, None)

    def release_pending(self, repository: Repository, digest: Digest) -> bool:
        """Return whether others may be about to drop a link, since this instance has answered not to rely on it."""
        return digest in self._pending_releases and repository not in self._pending_releases[digest]

    def link_reasserted(self, repository: Repository, digest: Digest) -> None:
        """Record that a link was re-asserted which others may be about to drop."""
        if digest in self._pending_releases:
            self._pending_releases[digest].add(repository)

    def is_leased(self, digest: Digest) -> bool:
        return self._leases.get(digest, 0.0) > now_s()

    # A pass

    async def run(self) -> None:
        """Collect at intervals, for ever."""
        while self._every_s:
            await asyncio.sleep(min(self._every_s, max(self._grace_s, 1.0)))
            try:
                report = await self.once()
            except StorageFailed as error:
                log.error(LogEvent.GARBAGE_COLLECTION_FAILED, "collection failed: %(error)s", error=error)
                continue
            if report.blocked:
                log.warning(
                    LogEvent.GARBAGE_COLLECTION_BLOCKED,
                    "nothing can be collected: %(problem)s",
                    problem=report.blocked.describe(),
                    reason=report.blocked.code,
                )
            elif report.removed or report.bodies:
                log.info(
                    LogEvent.GARBAGE_COLLECTION_FINISHED,
                    "collection: %(contents)d contents removed, %(bytes)d bytes, "
                    "and %(manifests)d manifests that no repository has any more",
                    contents=report.removed,
                    bytes=report.removed_bytes,
                    manifests=report.bodies,
                    by="schedule (gc_interval_s)",
                )

    async def once(self, dry: bool = False) -> Report:
        """Remove what can be removed now; with `dry` only report it."""
        async with self._lock:
            candidates = await self._candidates()
            now = now_s()
            ripe = [one for one in candidates if now - self._since.get(one.digest, now) >= self._grace_s]
            waiting = [one for one in candidates if now - self._since.get(one.digest, now) < self._grace_s]
            decisions = [Decision(*one, False, self._why_waiting(one, now)) for one in waiting]
            blocked, bodies = None, 0
            try:
                self._check_all_is_known()
                for at in range(0, len(ripe), BATCH):
                    decisions += await self._collect(ripe[at : at + BATCH], dry)
                bodies = await self._collect_bodies(dry)
            except Blocked as error:
                blocked = error.reason
                decided = {one.digest for one in decisions}
                left = [one for one in ripe if one.digest not in decided]
                decisions += [Decision(*one, False, Reason(Code.BLOCKED)) for one in left]
            self.last = Report(sorted(decisions), bodies, blocked)
            if not dry:
                self.ended_at = now_s()
            return self.last

    async def _candidates(self) -> list[UnreferencedContent]:
        """Return all unreferenced content, and record since when each is."""
        found: list[UnreferencedContent] = []
        now = now_s()
        last = ""
        while page := await unreferenced_content(self._catalog.database, last, PAGE):
            found += page
            last = page[-1].digest
        unused = {one.digest for one in found}
        self._since = {digest: at for digest, at in self._since.items() if digest in unused}
        for digest in list(unused)[: MAX_WATCHED - len(self._since)]:
            self._since.setdefault(digest, now)
        return found

    def _why_waiting(self, one: UnreferencedContent, now: float) -> Reason:
        left_s = self._grace_s - (now - self._since.get(one.digest, now))
        return Reason(Code.GRACE_PERIOD, {"remaining_s": round(left_s, 3)})

    def _check_all_is_known(self) -> None:
        if self._catalog.queries.missing_bodies(1):
            raise Blocked(Code.MANIFEST_MISSING)
        unreadable = unreadable_manifest(self._catalog.database)
        if unreadable is not None:
            raise Blocked(Code.MANIFEST_UNREADABLE, {"repository": unreadable[0], "digest": unreadable[1]})

        document = any_not_understood(self._catalog.database)
        if document is not None:
            raise Blocked(Code.DOCUMENT_NOT_UNDERSTOOD, {"document": document})

    async def _collect(self, batch: list[UnreferencedContent], dry: bool) -> list[Decision]:
        digests = [one.digest for one in batch]
        links = dict[Digest, frozenset[bytes]]()
        for number, digest in enumerate(digests, 1):
            links[digest] = links_of(self._catalog.database, digest)
            if number % LOOKED_AT_A_STEP == 0:
                await asyncio.sleep(0)
        relied = dict.fromkeys(self._relied_upon(digests), Reason(Code.REFERENCED_HERE))
        for member, digest in await self._ask_all(digests):
            relied[digest] = Reason(Code.REFERENCED_ELSEWHERE, _who(member))
        doomed = [digest for digest in digests if digest not in relied and digest in self._since]
        if dry:
            would_go = set(doomed)
            return [
                Decision(*one, False, Reason(Code.UNREFERENCED), True)
                if one.digest in would_go
                else Decision(*one, False, relied.get(one.digest, Reason(Code.REUSED)))
                for one in batch
            ]
        released = await self._release_all({digest: links[digest] for digest in doomed})
        removed = await self._remove([one for one in batch if one.digest in released], links)
        return [
            Decision(*one, True, Reason(Code.UNREFERENCED))
            if one.digest in removed
            else Decision(*one, False, relied.get(one.digest, Reason(Code.REUSED)))
            for one in batch
        ]

    async def _ask_all(self, digests: list[Digest]) -> list[tuple[Member, Digest]]:
        """Return which members rely on which content. Raises Blocked unless all answered and their facts are here."""
        members = self._members.all()
        request = ReferenceRequest(list(digests), self._incarnation.number, self._incarnation.published_seq)
        answers = await asyncio.gather(
            *(self._ask(member, "/references", request, ReferenceResponse) for member in members)
        )
        for member, answer in zip(members, answers, strict=True):
            if answer.problem:
                raise Blocked(Code.MEMBER_BLOCKED, _who(member) | {"cause": answer.problem})
        synchronizing = (
            self._synchronize(member, request, answer) for member, answer in zip(members, answers, strict=True)
        )
        if not all(await asyncio.gather(*synchronizing)):
            raise Blocked(Code.UPDATES_MISSING)
        return [
            (member, Digest(digest))
            for member, answer in zip(members, answers, strict=True)
            for digest in answer.referenced
        ]

    async def _synchronize(self, member: Member, request: ReferenceRequest, answer: ReferenceResponse) -> bool:
        """Exchange with a member until this instance has all that the member had committed when it answered, and vice
        versa. Mostly that is so, or the frames are on their way. Return whether it succeeded."""
        if answer.applied >= request.published_seq and await self._applied(
            member, answer.incarnation, answer.published_seq
        ):
            return True
        return await self._anti_entropy.catch_up_to_now(member)

    async def _applied(self, member: Member, incarnation: int, changes: int) -> bool:
        """Return whether we have all changes of a member up to one, or have them in a moment."""
        deadline = now_s() + FRAMES_TIMEOUT_S
        while member.applied.contiguous_seq(incarnation) < changes:
            if now_s() > deadline:
                return False
            await asyncio.sleep(APPLIED_POLL_S)
        return True

    async def _release_all(self, links: Links) -> set[Digest]:
        """Ask all members to release contents. Return those that all have released."""
        released = set(links)
        if not links:
            return released
        members = self._members.all()
        request = ReleaseRequest(list(links), [sorted(known) for known in links.values()])
        for answer in await asyncio.gather(*(self._ask(m, "/release", request, ReleaseResponse) for m in members)):
            released &= set(map(Digest, answer.released))
        return released

    async def _ask(self, member: Member, path: str, request: object, answer: type[T]) -> T:
        if not member.live:
            raise Blocked(Code.MEMBER_SILENT, _who(member) | {"address": self._members.url(member)})
        try:
            return await self._peers.ask(member, path, request, answer, REQUEST_TIMEOUT_S)
        except PeerUnreachable as error:
            detail = _who(member) | {"address": self._members.url(member), "error": str(error)}
            raise Blocked(Code.MEMBER_UNREACHABLE, detail) from None

    async def _remove(self, batch: list[UnreferencedContent], links: Links) -> set[Digest]:
        """Drop the rows and remove the files of contents that are still unreferenced."""
        removed = set()
        for digest, size in batch:
            async with self._store.changing(digest):
                if await self._catalog.database.write_in_steps(partial(self._forget, digest, links[digest])):
                    await self._store.remove(content_path(digest))
                    removed.add(digest)
                    self._since.pop(digest, None)
                    self.removed += 1
                    self.removed_bytes += size
        return removed

    def _forget(self, digest: Digest, links: frozenset[bytes], tx: Transaction) -> Steps[bool]:
        if digest not in self._since or not self._is_free(tx, digest, links):
            return False
        yield from drop_links(tx, self._catalog.documents, [digest])
        drop_content(tx, digest)
        return True

    async def _collect_bodies(self, dry: bool) -> int:
        """Drop manifest bodies that no live fact names: a later push brings its body along, or asks for it.
        Return how many, with `dry` without doing it."""
        count, last = 0, ""
        while page := await unreferenced_bodies(self._catalog.database, last, BATCH):
            last = page[-1]
            if not dry:
                count += await self._catalog.database.write_in_steps(partial(drop_bodies, digests=page))
            else:
                count += len(page)
        return count

    # Answering others

    async def answer_references(self, asker: Member | None, request: ReferenceRequest) -> ReferenceResponse:
        """Return which of some contents this instance relies on."""
        if asker is not None:
            await self._applied(asker, request.incarnation, request.published_seq)
        applied = asker.applied.contiguous_seq(request.incarnation) if asker is not None else 0
        relied, unknown = self._relied_upon(map(parse_digest, request.digests)), ""
        try:
            self._check_all_is_known()
        except Blocked as error:
            unknown = str(error)
        own = self._incarnation
        return ReferenceResponse(list(relied), unknown, own.number, own.published_seq, applied)

    def _relied_upon(self, digests: Iterable[Digest]) -> list[Digest]:
        relied: list[Digest] = []
        for digest in digests:
            if self.is_leased(digest) or is_referenced(self._catalog.database, digest):
                relied.append(digest)
            else:
                self._pending_releases.pop(digest, None)
                self._pending_releases[digest] = set()
        while len(self._pending_releases) > MAX_WATCHED:
            del self._pending_releases[next(iter(self._pending_releases))]
        return relied

    async def release(self, links: Links) -> list[Digest]:
        """Drop the links of contents about which this instance was asked and on which nothing relies since."""

        def drop(tx: Transaction) -> Steps[list[Digest]]:
            free: list[Digest] = []
            for number, (digest, known) in enumerate(links.items(), 1):
                if digest in self._pending_releases and self._is_free(tx, digest, known):
                    free.append(digest)
                if number % LOOKED_AT_A_STEP == 0:
                    yield
            yield from drop_links(tx, self._catalog.documents, [digest for digest in free if is_linked(tx, digest)])
            return free

        return await self._catalog.database.write_in_steps(drop)

    def _is_free(self, tx: Transaction, digest: Digest, links: frozenset[bytes]) -> bool:
        """Return whether nothing relies on a content, nor can have come to: it has no links but these."""
        is_free = not self.is_leased(digest) and not is_referenced(tx, digest) and links_of(tx, digest) <= links
        return is_free and any_not_understood(tx) is None


def _who(member: Member) -> dict[str, str]:
    return {"instance": member.instance, "name": member.beat.name, "site": member.beat.site}

"""Eviction: keeping a disk within its budget by removing replicas that other instances hold.

Eviction begins at a high watermark and removes the least recently used content down to a low one. A replica may be
evicted only if the policy does not assign it to this instance (`rendezvous`), and if as many instances as the policy
asks for, at least one, have just confirmed that they hold it. Each of those must rank higher for the content than this
instance. Because ranks are a total order, two instances can never rely on each other's replica, even when they evict
at the same time and cannot reach each other.

An instance that is being decommissioned relies on the replicas of others, and no longer confirms that it holds its own.
Its request cancels an eviction of the same content that is being decided (`cancel_eviction`), and it evicts nothing
itself.

The bytes of uploads under way count too. An upload for which there is no room is refused.
"""

import asyncio

from registry.catalog.catalog import Catalog
from registry.catalog.content import UsedRow, content_bytes_aside, drop_content, least_used, note_used
from registry.catalog.database import Transaction
from registry.cluster.membership.members import Members
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.rendezvous import ranked
from registry.cluster.placement.replicator import Replicator
from registry.cluster.rpc.client import PeerClient
from registry.errors import StorageFailed
from registry.event_loop.now import now_s
from registry.oci.names import Digest, Repository
from registry.ports import Clock, PeerUnreachable
from registry.storage.disk_budget import DiskBudget
from registry.storage.store import BlobStore, content_path
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.evict")

CHECK_INTERVAL_S = 5.0
"""Time between two looks at the budget: a disk fills by a few GiB in it at most."""
MAX_BACKOFF_S = 60.0
"""Longest time between two looks while nothing can be evicted."""
HIGH = 0.9
LOW = 0.8
PAGE = 200
REQUEST_TIMEOUT_S = 5.0
MAX_NOTED = 100_000


class Evictor:
    """The eviction of one instance: keeps its content within its budget.

    Has more than a dozen attributes: whether content may go is decided with the catalog, the members, the policy and
    garbage collection at once.
    """

    def __init__(
        self,
        budget: DiskBudget,
        catalog: Catalog,
        store: BlobStore,
        members: Members,
        peers: PeerClient,
        replicator: Replicator,
        garbage_collector: GarbageCollector,
        clock: Clock,
    ) -> None:
        self._budget = budget
        self._catalog = catalog
        self._store = store
        self._members = members
        self._peers = peers
        self._replicator = replicator
        self._garbage_collector = garbage_collector
        self._clock = clock
        self._deciding: Digest | None = None
        """The content whose eviction is being decided; None when a decommission has cancelled that."""
        self._is_stopped = False
        self._used: dict[Digest, int] = {}
        """Times of last reads that are not in the catalog yet, in wall milliseconds."""
        self._again_at = 0.0
        """The time of the next try, in loop time, after one that removed too little: members are not asked all the time
        for content that only this instance holds."""
        self._pause_s = 0.0
        self.evicted = 0
        self.evicted_bytes = 0

    def touch(self, digest: Digest) -> None:
        """Record a read of content."""
        if self._budget.limit_bytes and len(self._used) < MAX_NOTED:
            self._used[digest] = self._clock.now_ms()

    def cancel_eviction(self, digest: Digest) -> None:
        """Cancel the eviction of a content that is being decided: a member that leaves is about to rely on it."""
        if self._deciding == digest:
            self._deciding = None

    def stop(self) -> None:
        """Evict nothing more: this instance is being decommissioned."""
        self._is_stopped = True

    async def run(self) -> None:
        """Evict at intervals, for ever."""
        while self._budget.limit_bytes:
            try:
                await self.once()
            except StorageFailed as error:
                log.error(LogEvent.EVICTION_FAILED, "eviction failed: %(error)s", error=error)
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def once(self) -> None:
        """Store the times of reads, and evict down to the low watermark if there is more than the high one allows."""
        budget = self._budget
        used, self._used = self._used, {}
        if used:
            await self._catalog.database.write(lambda tx: note_used(tx, used))
        budget.content_bytes = await content_bytes_aside(self._catalog.database)
        if budget.taken_bytes <= HIGH * budget.limit_bytes:
            self._pause_s, budget.is_exhausted, self._again_at = 0.0, False, 0.0
            return
        if now_s() < self._again_at:
            return
        before, last = self.evicted_bytes, (-1, "")
        while budget.taken_bytes > LOW * budget.limit_bytes:
            page = least_used(self._catalog.database, last, PAGE)
            for one in page:
                if budget.taken_bytes > LOW * budget.limit_bytes and await self._evict(one):
                    budget.content_bytes -= one.size
            if not page:
                break
            last = (page[-1].used_ms, page[-1].digest)
        log.info(LogEvent.CONTENT_EVICTED, "%(bytes)d bytes were evicted", bytes=self.evicted_bytes - before)
        budget.is_exhausted = budget.taken_bytes > HIGH * budget.limit_bytes
        self._pause_s = min(self._pause_s * 2 or CHECK_INTERVAL_S, MAX_BACKOFF_S) if budget.is_exhausted else 0.0
        self._again_at = now_s() + self._pause_s
        if budget.is_exhausted:
            log.warning(
                LogEvent.EVICTION_EXHAUSTED,
                "more content than the disk budget allows is on this disk, and other instances hold none of the rest",
            )

    async def _evict(self, one: UsedRow) -> bool:
        """Evict one content if that is safe. Return whether it was."""
        if self._is_stopped or self._garbage_collector.is_leased(one.digest):
            return False
        self._deciding, begun_s = one.digest, now_s()
        if not await self._is_held_by_higher_ones(one.digest):
            return False
        async with self._store.changing(one.digest):
            if not await self._catalog.database.write(lambda tx: self._drop(tx, one.digest)):
                return False
            await self._store.remove(content_path(one.digest))
        self.evicted += 1
        self.evicted_bytes += one.size
        log.debug(
            LogEvent.REPLICA_EVICTED,
            "evicted %(digest)s, %(bytes)d bytes, after %(decided_in_s).3f s",
            digest=one.digest,
            bytes=one.size,
            decided_in_s=now_s() - begun_s,
        )
        return True

    def _drop(self, tx: Transaction, digest: Digest) -> bool:
        """Drop the row of a content. Return False, and keep it, where its eviction was cancelled, it was read or the
        policy has come to assign it to this instance while members were asked."""
        if self._deciding != digest or digest in self._used or self._is_to_hold(self._repositories(digest), digest):
            return False
        drop_content(tx, digest)
        return True

    async def _is_held_by_higher_ones(self, digest: Digest) -> bool:
        repositories = self._repositories(digest)
        if not repositories or self._is_to_hold(repositories, digest):
            return False  # garbage collection removes what is not linked
        needed = max(len(self._replicator.designated(repository, digest)) for repository in repositories)
        order = ranked(digest, [*self._members.replica_candidates(), self._members.own])
        higher = order[: order.index(self._members.own)] if not self._replicator.is_proxy else order
        return await self._count(digest, [one.instance for one in higher], max(needed, 1)) >= max(needed, 1)

    def _repositories(self, digest: Digest) -> list[Repository]:
        return [repository for repository, _ in self._catalog.queries.links_of(digest)]

    def _is_to_hold(self, repositories: list[Repository], digest: Digest) -> bool:
        return any(self._members.own in self._replicator.designated(repository, digest) for repository in repositories)

    async def _count(self, digest: Digest, instances: list[str], enough: int) -> int:
        """Return how many of some instances hold a content, counted up to `enough`."""
        count = 0
        for instance in instances:
            member = self._members.get(instance)
            if count < enough and member is not None and member.reachable:
                try:
                    count += await self._peers.keeps(member, digest, REQUEST_TIMEOUT_S)
                except PeerUnreachable:
                    continue
        return count

"""The replicator: fetching the content that the policy assigns to this instance.

An instance fetches its content as soon as the link is committed here: at the end of the upload, not with the manifest.
A walk over all links, at a bounded rate, finds what was missed: during a restart, when members joined or left, while
holders were unreachable. No member pushes content, and no list of holders is kept, since all members compute the same
ranking (`rendezvous`).
"""

import asyncio
import math
from collections import OrderedDict, deque
from typing import NamedTuple

from crdt.fact import Fact
from registry.catalog.queries import KIND, Queries
from registry.cluster.membership.members import Members
from registry.cluster.placement.rendezvous import Candidate, designated
from registry.cluster.transfer.locator import Locator
from registry.cluster.transfer.transfer import TransferFailed, Transfers
from registry.errors import ContentUnreachable, StorageFailed
from registry.event_loop.now import now_s
from registry.event_loop.steps import ROWS_PER_STEP
from registry.oci.names import Digest, Repository
from registry.settings.policy import Policy
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import MIB

log = EventLog("concord.copies")

AT_ONCE = 4
CHECK_INTERVAL_S = 5.0
RESCAN_INTERVAL_S = 600.0
"""Time after which all content is compared with the policy again, also where no member has come or gone."""
RETRY_S = 30.0
PAGE = 200
MIN_PACE_S = 0.05
"""Shortest pause between two contents, beside what the bandwidth asks for."""
MAX_PENDING = 100_000


class Link(NamedTuple):
    """A content that is linked somewhere."""

    digest: Digest
    size: int
    writer: int


class Replicator:
    """The replicas of one instance. `keeps` is False for a proxy instance, which holds none.

    Has more than a dozen attributes: the queue of new links and the walk over all links feed the same fetches.
    """

    def __init__(
        self,
        policy: Policy,
        keeps: bool,
        queries: Queries,
        members: Members,
        locator: Locator,
        transfers: Transfers,
        mib_s: float,
    ) -> None:
        self._policy = policy
        self._counts = keeps
        self._keeps = keeps and policy.copies_anything
        self._queries = queries
        self._members = members
        self._locator = locator
        self._transfers = transfers
        self._mib_s = mib_s
        self._pending: OrderedDict[Digest, Link] = OrderedDict()
        self._linked: deque[tuple[Repository, list[Fact]]] = deque()
        """New links of large changes that are not processed yet, in pages."""
        self._choosing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._last_walk_at = -RESCAN_INTERVAL_S
        self._last_walk_candidates: list[Candidate] = []
        self._again_at = math.inf
        """The time of the next walk over all links when membership does not change, in loop time."""
        self.fetched = 0
        """Contents fetched because the policy assigns them to this instance."""
        self.missing = 0
        """Assigned contents that no holder could send, as of the last walk over all links."""

    def candidates(self) -> list[Candidate]:
        """Return the instances that may hold replicas, this instance among them if it does."""
        return self._members.replica_candidates() + ([self._members.own] if self._keeps else [])

    @property
    def is_proxy(self) -> bool:
        """Return whether others cannot count on replicas of this instance."""
        return not self._counts

    def stop(self) -> None:
        """Fetch no more replicas, and count as a proxy from now on."""
        self._keeps = self._counts = False
        self._pending.clear()
        self._linked.clear()

    def designated(self, repository: Repository, digest: Digest) -> list[Candidate]:
        return designated(self._policy.of(repository).copies, digest, self.candidates())

    def is_assigned(self, digest: Digest) -> bool:
        """Return whether the policy assigns a content to this instance, in any repository that links it."""
        if not self._keeps:
            return False
        asked_for = {self._policy.of(repository).copies for repository, _ in self._queries.links_of(digest)}
        candidates = self.candidates()
        return any(self._members.own in designated(copies, digest, candidates) for copies in asked_for)

    def linked(self, document: str, links: list[Fact]) -> None:
        """Schedule what newly committed links assign to this instance."""
        if not self._keeps or not document.startswith(KIND):
            return
        repository = Repository(document.removeprefix(KIND))
        if len(links) <= ROWS_PER_STEP and not self._linked:
            self._choose(repository, links)
            return
        for at in range(0, len(links), ROWS_PER_STEP):
            self._linked.append((repository, links[at : at + ROWS_PER_STEP]))
        if self._choosing is None or self._choosing.done():
            self._choosing = asyncio.create_task(self._choose_all())

    async def _choose_all(self) -> None:
        """Process the links of large changes, a page in each turn of the loop."""
        while self._linked:
            self._choose(*self._linked.popleft())
            await asyncio.sleep(0)

    def _choose(self, repository: Repository, links: list[Fact]) -> None:
        """Schedule those of some new links whose content this instance must fetch."""
        for fact in links:
            link = Link(Digest(fact.key), fact.size, fact.writer)
            if self._lacks(link.digest) and self._is_mine(repository, link.digest):
                if len(self._pending) >= MAX_PENDING:
                    self._again_at = 0.0
                    return
                self._pending[link.digest] = link
                self._wake.set()

    def close(self) -> None:
        if self._choosing is not None:
            self._choosing.cancel()

    @property
    def pending(self) -> int:
        """Return how many contents are waiting to be fetched."""
        return len(self._pending)

    async def run(self) -> None:
        """Fetch what is pending, and walk over all links at intervals, for ever."""
        if not self._keeps:
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._fetch_pending())
            group.create_task(self._walk_at_intervals())

    async def _fetch_pending(self) -> None:
        while True:
            while not self._pending:
                self._wake.clear()
                await self._wake.wait()
            _, link = self._pending.popitem(last=False)
            if not await self._copy(link):
                self._try_again(self._members.may_recover())

    async def _copy(self, link: Link) -> bool:
        """Fetch one content. Return False where no reachable member could send it."""
        if not self._lacks(link.digest):
            return True
        uploader = self._queries.instance_of(link.writer)
        try:
            if await self._locator.size_anywhere(link.digest) is not None:
                if self._lacks(link.digest):  # else it has come while others were asked
                    await self._transfers.ensure_held(link.digest, link.size, uploader)
                    self.fetched += 1
                return True
        except (ContentUnreachable, TransferFailed, StorageFailed) as error:
            log.warning(
                LogEvent.REPLICA_FETCH_FAILED,
                "%(digest)s could not be replicated here: %(error)s",
                digest=link.digest,
                error=error,
            )
        return False

    async def _walk_at_intervals(self) -> None:
        while True:
            candidates = self.candidates()
            if (
                now_s() >= self._again_at
                or candidates != self._last_walk_candidates
                or now_s() - self._last_walk_at >= RESCAN_INTERVAL_S
            ):
                self._again_at, self._last_walk_candidates = math.inf, candidates
                await self._walk()
                self._last_walk_at = now_s()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def _walk(self) -> None:
        """Walk over all links and fetch what is assigned to this instance and missing, at the configured rate."""
        missing, soon, last = 0, False, ""
        while digests := await self._queries.links_not_held(last, PAGE):
            for digest in digests:
                repositories = self._queries.links_of(digest)
                mine = [row for name, row in repositories if self._is_mine(name, digest)]
                if mine:
                    size, writer = mine[0]
                    if await self._copy(Link(digest, size, writer)):
                        await asyncio.sleep(size / (self._mib_s * MIB))
                    else:
                        missing += 1
                        soon = soon or self._members.may_recover()
            last = digests[-1]
            await asyncio.sleep(MIN_PACE_S)
        self.missing = missing
        if missing:
            self._try_again(soon)

    def _try_again(self, soon: bool) -> None:
        """Schedule another walk for content that could not be fetched; at once where members may still be starting:
        right after a start this instance has heard of none."""
        self._again_at = min(self._again_at, now_s() + (0.0 if soon else RETRY_S))

    def _lacks(self, digest: Digest) -> bool:
        return not self._queries.is_held(digest)

    def _is_mine(self, repository: Repository, digest: Digest) -> bool:
        return self._members.own in self.designated(repository, digest)

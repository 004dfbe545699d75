"""Bringing content to where the policy wants it.

Whoever is to hold a content fetches it, from the moment its link is committed here: at the end of an upload, not with
the manifest. What was missed (a start, an instance that came or went, a holder that was out of reach) is found by going
over all links again, at a bounded rate. Nobody is asked to take anything, and no list of who has what is kept: everyone
computes the same (see `ranking`).
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
from registry.event_loop.steps import ROWS_PER_STEP
from registry.oci.names import Digest, Repository
from registry.settings.policy import Policy
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.copies")

AT_ONCE = 4
LOOK_S = 5.0
GO_OVER_S = 600.0
RETRY_S = 30.0
PAGE = 200
PAUSE_S = 0.05
MAX_DUE = 100_000
MIB = 1024 * 1024


class Link(NamedTuple):
    """A content that is linked somewhere."""

    digest: Digest
    size: int
    writer: int


class Replicator:
    """This instance's part in keeping copies. `keeps` is False for a front end."""

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
        self._due: OrderedDict[Digest, Link] = OrderedDict()
        self._linked: deque[tuple[Repository, list[Fact]]] = deque()
        """New links of large changes that have not been looked at yet, in pages."""
        self._choosing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._gone_over_at = -GO_OVER_S
        self._gone_over_with: list[Candidate] = []
        self._again_at = math.inf
        """When to go over all links again although nobody has come or gone, in loop time."""
        self.copied = 0
        """Contents fetched because they are to be here."""
        self.lacking = 0
        """Contents that are to be here and could not be had, when all links were gone over last."""

    def candidates(self) -> list[Candidate]:
        """All that copies are to be at, this instance among them if it keeps any."""
        return self._members.replica_candidates() + ([self._members.own] if self._keeps else [])

    @property
    def is_proxy(self) -> bool:
        """Whether this instance is none that others could count on."""
        return not self._counts

    def stop(self) -> None:
        """Keep no more copies here."""
        self._keeps = self._counts = False
        self._due.clear()
        self._linked.clear()

    def designated(self, repository: Repository, digest: Digest) -> list[Candidate]:
        return designated(self._policy.of(repository).copies, digest, self.candidates())

    def linked(self, document: str, links: list[Fact]) -> None:
        """Links have been committed here."""
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
        """Look at the links of large changes, a page before each turn of the loop."""
        while self._linked:
            self._choose(*self._linked.popleft())
            await asyncio.sleep(0)

    def _choose(self, repository: Repository, links: list[Fact]) -> None:
        """Note which of some new links are to be fetched."""
        for fact in links:
            link = Link(Digest(fact.key), fact.size, fact.writer)
            if self._lacks(link.digest) and self._is_mine(repository, link.digest):
                if len(self._due) >= MAX_DUE:
                    self._again_at = 0.0
                    return
                self._due[link.digest] = link
                self._wake.set()

    def close(self) -> None:
        if self._choosing is not None:
            self._choosing.cancel()

    @property
    def due(self) -> int:
        """How many contents are waiting to be fetched."""
        return len(self._due)

    async def run(self) -> None:
        """Fetch what is due, and go over all links now and then, for ever."""
        if not self._keeps:
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._fetch_due())
            group.create_task(self._go_over_often())

    async def _fetch_due(self) -> None:
        while True:
            while not self._due:
                self._wake.clear()
                await self._wake.wait()
            _, link = self._due.popitem(last=False)
            if not await self._copy(link):
                self._try_again(self._members.may_recover())

    async def _copy(self, link: Link) -> bool:
        """Fetch one content, unless it has come meanwhile or nobody reachable has it."""
        if not self._lacks(link.digest):
            return True
        uploader = self._queries.instance_of(link.writer)
        try:
            if await self._locator.size_anywhere(link.digest) is not None:
                if self._lacks(link.digest):  # else it has come while others were asked
                    await self._transfers.bring(link.digest, link.size, uploader)
                    self.copied += 1
                return True
        except (ContentUnreachable, TransferFailed, StorageFailed) as error:
            log.warning(
                LogEvent.REPLICA_FETCH_FAILED,
                "no copy of %(digest)s could be made: %(error)s",
                digest=link.digest,
                error=error,
            )
        return False

    async def _go_over_often(self) -> None:
        while True:
            candidates = self.candidates()
            if (
                _now() >= self._again_at
                or candidates != self._gone_over_with
                or _now() - self._gone_over_at >= GO_OVER_S
            ):
                self._again_at, self._gone_over_with = math.inf, candidates
                await self._go_over()
                self._gone_over_at = _now()
            await asyncio.sleep(LOOK_S)

    async def _go_over(self) -> None:
        """Fetch whatever is to be here and is not, slowly."""
        lacking, soon, last = 0, False, ""
        while digests := await self._queries.links_not_held(last, PAGE):
            for digest in digests:
                repositories = self._queries.links_of(digest)
                mine = [row for name, row in repositories if self._is_mine(name, digest)]
                if mine:
                    size, writer = mine[0]
                    if await self._copy(Link(digest, size, writer)):
                        await asyncio.sleep(size / (self._mib_s * MIB))
                    else:
                        lacking += 1
                        soon = soon or self._members.may_recover()
            last = digests[-1]
            await asyncio.sleep(PAUSE_S)
        self.lacking = lacking
        if lacking:
            self._try_again(soon)

    def _try_again(self, soon: bool) -> None:
        """Go over all links again for what could not be had; at the next look where somebody may have been about to
        answer: right after a start nobody has been heard of yet."""
        self._again_at = min(self._again_at, _now() + (0.0 if soon else RETRY_S))

    def _lacks(self, digest: Digest) -> bool:
        return not self._queries.is_held(digest)

    def _is_mine(self, repository: Repository, digest: Digest) -> bool:
        return self._members.own in self.designated(repository, digest)


def _now() -> float:
    return asyncio.get_running_loop().time()

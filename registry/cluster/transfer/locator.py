"""The locator: finding the holders of a content by asking members.

No directory of holders is kept or replicated. The locator first asks the likely holders: the last one it found, the
instance that the content was uploaded to, and the members that rank first for it (`rendezvous`): two of this site, and
four over all sites. It asks the rest when none of the likely ones holds the content, or when none answers for a moment
(a hedged request). So a lookup costs a handful of requests however large the cluster is, and a dead member costs that
moment.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from registry.cluster.membership.members import Member, Members
from registry.cluster.placement.rendezvous import Candidate, ranked, spread
from registry.cluster.rpc.client import PeerClient
from registry.oci.names import Digest
from registry.ports import PeerUnreachable

MISS_BOUND_S = 0.25
REQUEST_TIMEOUT_S = 2.0
HEDGE_S = 0.05
RETRY_INTERVAL_S = 0.25
LIKELY_NEAR = 2
LIKELY = 4
MAX_REMEMBERED = 10_000


class Locator:
    """Asks members which of them hold a content on their disk."""

    def __init__(self, peers: PeerClient, members: Members) -> None:
        self._peers = peers
        self._members = members
        self._asking: dict[tuple[str, Digest], asyncio.Task[int | None]] = {}
        self._last_holders: OrderedDict[Digest, str] = OrderedDict()
        """The member that held a content at its last lookup."""
        self.requests = 0

    async def holders(
        self, digest: Digest, members: Iterable[Member] | None = None, uploader: str | None = None
    ) -> AsyncGenerator[tuple[Member, int], None]:
        """Yield reachable holders with the size they have, as their answers arrive; of several at once, those of
        this site first, then those that answer fast."""
        asking = list(self._members.reachable() if members is None else members)
        likely = self._likely(digest, asking, uploader)
        others = [member for member in asking if member not in likely]
        member_of = {self._ask_once(member, digest): member for member in likely}
        pending = set(member_of)
        while pending or others:
            done, pending = (
                await asyncio.wait(pending, timeout=HEDGE_S if others else None, return_when=asyncio.FIRST_COMPLETED)
                if pending
                else (set(), pending)
            )
            for task in sorted(done, key=lambda task: self._distance(member_of[task])):
                size = task.result()
                if size is not None:
                    self._remember(digest, member_of[task])
                    yield member_of[task], size
            if others and not (done and pending):
                more = {self._ask_once(member, digest): member for member in others}
                member_of, pending, others = member_of | more, pending | set(more), []

    def _likely(self, digest: Digest, members: list[Member], uploader: str | None) -> list[Member]:
        by_id = {member.instance: member for member in members}
        order = ranked(digest, (Candidate(member.instance, member.beat.site) for member in members))
        near = [one for one in order if one.site == self._members.own_site][:LIKELY_NEAR]
        first = [self._last_holders.get(digest), uploader, *(one.instance for one in (*near, *spread(order)[:LIKELY]))]
        return [by_id[one] for one in dict.fromkeys(first) if one in by_id]

    def _distance(self, member: Member) -> tuple[bool, float]:
        return member.beat.site != self._members.own_site, member.answers_in_s

    def _remember(self, digest: Digest, member: Member) -> None:
        self._last_holders.pop(digest, None)
        self._last_holders[digest] = member.instance
        if len(self._last_holders) > MAX_REMEMBERED:
            self._last_holders.popitem(last=False)

    async def size_anywhere(self, digest: Digest) -> int | None:
        """Return the size of a content at any reachable holder; None where there is none."""
        async with aclosing(self.holders(digest)) as holders:
            async for _, size in holders:
                return size
        return None

    async def size_within_miss_bound(self, digest: Digest) -> int | None:
        """Return the size of a content at any reachable holder; None where none answers within MISS_BOUND_S."""
        prompt = [member for member in self._members.reachable() if member.prompt]
        try:
            async with asyncio.timeout(MISS_BOUND_S), aclosing(self.holders(digest, prompt)) as holders:
                async for _, size in holders:
                    return size
        except TimeoutError:
            pass
        return None

    async def size_before_upload(self, digest: Digest) -> int | None:
        """Return the size of a content at any holder; None when the client must upload it again.

        Waits for all answers, and for members that may be restarting: a client that has just uploaded a blob asks
        whether it exists, and fails when it does not."""
        while (size := await self.size_anywhere(digest)) is None and self._members.may_recover():
            await asyncio.sleep(RETRY_INTERVAL_S)
        return size

    async def quarantined_holders(self, digest: Digest) -> list[tuple[Member, int]]:
        """Return reachable members with a quarantined copy, and its size: its intact parts can be read."""
        members = self._members.reachable()
        sizes = await asyncio.gather(*(self._ask(member, digest, quarantined=True) for member in members))
        return [(member, size) for member, size in zip(members, sizes, strict=True) if size is not None]

    def _ask_once(self, member: Member, digest: Digest) -> "asyncio.Task[int | None]":
        """Return the task of a request, shared by all that wait for it. It outlives waiters that give up."""
        key = (member.instance, digest)
        task = self._asking.get(key)
        if task is None:
            self.requests += 1
            task = self._asking[key] = asyncio.create_task(self._ask(member, digest))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _ask(self, member: Member, digest: Digest, quarantined: bool = False) -> int | None:
        try:
            return await self._peers.held_size(member, digest, REQUEST_TIMEOUT_S, quarantined)
        except PeerUnreachable:
            return None

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()

    def whereabouts(self, instance: str | None) -> str:
        """Describe, for operators and clients, where an unreachable content was uploaded to."""
        if instance is None:
            return "no instance that has it can be reached"
        if instance == self._members.own_instance:
            return "it was uploaded to this instance, whose disk does not have it"
        member = self._members.get(instance)
        site = f" at site {member.beat.site}" if member is not None and member.beat.site else ""
        shown = member.shown if member is not None else f"instance {instance}"
        return f"it was uploaded to {shown}{site}, and no instance that has it can be reached"

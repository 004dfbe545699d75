"""Who has a content.

No list of that is kept or sent around. Asked first are those that are likely to have it: who had it when it was looked
for last, the instance it was uploaded to, and those that rank first for it (see `ranking`), near ones and far ones. The
others are asked when none of these says yes, or says nothing for a moment. So a content costs a handful of questions
however many instances there are, and one that is dead or slow costs that moment.
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
ANSWER_S = 2.0
HEDGE_S = 0.05
LOOK_AGAIN_S = 0.25
LIKELY_NEAR = 2
LIKELY = 4
MAX_REMEMBERED = 10_000


class Locator:
    """Asks members which of them hold a content on their disk."""

    def __init__(self, peers: PeerClient, members: Members) -> None:
        self._peers = peers
        self._members = members
        self._asking: dict[tuple[str, Digest], asyncio.Task[int | None]] = {}
        self._had: OrderedDict[Digest, str] = OrderedDict()
        """Who had a content when it was looked for last."""
        self.questions = 0

    async def holders(
        self, digest: Digest, members: Iterable[Member] | None = None, uploader: str | None = None
    ) -> AsyncGenerator[tuple[Member, int], None]:
        """Reachable members that have it, and its size there, as their answers come; of several at once, those of the
        own site first, and then those that answer fast."""
        asking = list(self._members.reachable() if members is None else members)
        likely = self._likely(digest, asking, uploader)
        others = [member for member in asking if member not in likely]
        asked = {self._ask_once(member, digest): member for member in likely}
        pending = set(asked)
        while pending or others:
            done, pending = (
                await asyncio.wait(pending, timeout=HEDGE_S if others else None, return_when=asyncio.FIRST_COMPLETED)
                if pending
                else (set(), pending)
            )
            for task in sorted(done, key=lambda task: self._distance(asked[task])):
                size = task.result()
                if size is not None:
                    self._remember(digest, asked[task])
                    yield asked[task], size
            if others and not (done and pending):
                more = {self._ask_once(member, digest): member for member in others}
                asked, pending, others = asked | more, pending | set(more), []

    def _likely(self, digest: Digest, members: list[Member], uploader: str | None) -> list[Member]:
        by_id = {member.instance: member for member in members}
        order = ranked(digest, (Candidate(member.instance, member.beat.site) for member in members))
        near = [one for one in order if one.site == self._members.own_site][:LIKELY_NEAR]
        first = [self._had.get(digest), uploader, *(one.instance for one in (*near, *spread(order)[:LIKELY]))]
        return [by_id[one] for one in dict.fromkeys(first) if one in by_id]

    def _distance(self, member: Member) -> tuple[bool, float]:
        return member.beat.site != self._members.own_site, member.answers_in_s

    def _remember(self, digest: Digest, member: Member) -> None:
        self._had.pop(digest, None)
        self._had[digest] = member.instance
        if len(self._had) > MAX_REMEMBERED:
            self._had.popitem(last=False)

    async def size_anywhere(self, digest: Digest) -> int | None:
        """The size of a content that some reachable member has."""
        async with aclosing(self.holders(digest)) as holders:
            async for _, size in holders:
                return size
        return None

    async def size_within_miss_bound(self, digest: Digest) -> int | None:
        """The size of a content that some reachable member has, or None when none says so in time."""
        prompt = [member for member in self._members.reachable() if member.prompt]
        try:
            async with asyncio.timeout(MISS_BOUND_S), aclosing(self.holders(digest, prompt)) as holders:
                async for _, size in holders:
                    return size
        except TimeoutError:
            pass
        return None

    async def size_before_upload(self, digest: Digest) -> int | None:
        """The size of a content that some member has, or None when it has to be uploaded again. Answers are waited for,
        and members that may be restarting: a client that has just uploaded a blob asks whether it is there, and gives
        up when it is not."""
        while (size := await self.size_anywhere(digest)) is None and self._members.may_recover():
            await asyncio.sleep(LOOK_AGAIN_S)
        return size

    async def damaged(self, digest: Digest) -> list[tuple[Member, int]]:
        """Reachable members that have put a damaged copy aside, and its size: what is right in it can be had."""
        members = self._members.reachable()
        sizes = await asyncio.gather(*(self._ask(member, digest, damaged=True) for member in members))
        return [(member, size) for member, size in zip(members, sizes, strict=True) if size is not None]

    def _ask_once(self, member: Member, digest: Digest) -> "asyncio.Task[int | None]":
        """The question to a member, once however many want to know. It outlives whoever gives up waiting."""
        key = (member.instance, digest)
        task = self._asking.get(key)
        if task is None:
            self.questions += 1
            task = self._asking[key] = asyncio.create_task(self._ask(member, digest))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _ask(self, member: Member, digest: Digest, damaged: bool = False) -> int | None:
        try:
            return await self._peers.held_size(member, digest, ANSWER_S, damaged)
        except PeerUnreachable:
            return None

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()

    def whereabouts(self, instance: str | None) -> str:
        """Words for an operator and a client: where a content is that cannot be reached."""
        if instance is None:
            return "no instance that has it can be reached"
        if instance == self._members.own_instance:
            return "it was uploaded to this instance, whose disk does not have it"
        member = self._members.get(instance)
        site = f" at site {member.beat.site}" if member is not None and member.beat.site else ""
        shown = member.shown if member is not None else f"instance {instance}"
        return f"it was uploaded to {shown}{site}, and no instance that has it can be reached"

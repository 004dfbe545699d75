"""Who has a content."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from registry.cluster.members import Member, Members
from registry.cluster.peers import Peers
from registry.names import Digest
from registry.seams import PeerUnreachable

MISS_BOUND_S = 0.25
ANSWER_S = 2.0


class Locate:
    """Asks members which of them hold a content on their disk."""

    def __init__(self, peers: Peers, members: Members) -> None:
        self._peers = peers
        self._members = members
        self._asking: dict[tuple[str, Digest], asyncio.Task[int | None]] = {}

    async def holders(
        self, digest: Digest, members: Iterable[Member] | None = None
    ) -> AsyncGenerator[tuple[Member, int], None]:
        """Reachable members that have it, and its size there, as their answers come; of several at once, those of the
        own site first."""
        asking = self._members.reachable() if members is None else members
        asked = {self._ask_once(member, digest): member for member in asking}
        pending = set(asked)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda t: asked[t].beat.site != self._members.own_site):
                size = task.result()
                if size is not None:
                    yield asked[task], size

    async def anywhere(self, digest: Digest) -> bool:
        """Whether some reachable member has it."""
        async with aclosing(self.holders(digest)) as holders:
            async for _ in holders:
                return True
        return False

    async def within_miss_bound(self, digest: Digest) -> int | None:
        """The size of a content that some reachable member has, or None when none says so in time."""
        prompt = [member for member in self._members.reachable() if member.prompt]
        try:
            async with asyncio.timeout(MISS_BOUND_S), aclosing(self.holders(digest, prompt)) as holders:
                async for _, size in holders:
                    return size
        except TimeoutError:
            pass
        return None

    def _ask_once(self, member: Member, digest: Digest) -> "asyncio.Task[int | None]":
        """The question to a member, once however many want to know. It outlives whoever gives up waiting."""
        key = (member.instance, digest)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(member, digest))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _ask(self, member: Member, digest: Digest) -> int | None:
        try:
            return await self._peers.held_size(member, digest, ANSWER_S)
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
        return f"it was uploaded to instance {instance[:12]}{site}, and no instance that has it can be reached"

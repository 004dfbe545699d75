"""Who has a content."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from registry.cluster.members import Member, Members
from registry.cluster.peers import TIMEOUT_S, Peers
from registry.names import Digest
from registry.seams import PeerUnreachable

MISS_BOUND_S = 0.25


class Locate:
    """Asks members which of them hold a content on their disk."""

    def __init__(self, peers: Peers, members: Members) -> None:
        self._peers = peers
        self._members = members

    async def holders(self, digest: Digest, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[tuple[Member, int], None]:
        """Members that have it, and its size there, as their answers come; those of the own site first if they tie."""
        asked = {asyncio.create_task(self._ask(m, digest, timeout_s)): m for m in self._members.reachable()}
        pending = set(asked)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=lambda t: asked[t].beat.site != self._members.own_site):
                    size = task.result()
                    if size is not None:
                        yield asked[task], size
        finally:
            for task in pending:
                task.cancel()

    async def within_miss_bound(self, digest: Digest) -> int | None:
        """The size of a content that some reachable member has, or None when none says so in time."""
        try:
            async with asyncio.timeout(MISS_BOUND_S), aclosing(self.holders(digest, MISS_BOUND_S)) as holders:
                async for _, size in holders:
                    return size
        except TimeoutError:
            pass
        return None

    async def _ask(self, member: Member, digest: Digest, timeout_s: float) -> int | None:
        try:
            return await self._peers.held_size(member, digest, timeout_s)
        except PeerUnreachable:
            return None

    def whereabouts(self, instance: str | None) -> str:
        """Words for an operator and a client: where a content is that cannot be reached."""
        if instance is None:
            return "no instance that has it can be reached"
        if instance == self._members.own_instance:
            return "it was uploaded to this instance, whose disk does not have it"
        member = self._members.get(instance)
        site = f" at site {member.beat.site}" if member is not None and member.beat.site else ""
        return f"it was uploaded to instance {instance[:12]}{site}, and no instance that has it can be reached"

"""Proof that members are alive now.

Heartbeats on the bus are authentic, not fresh: anyone who can publish there can record them and publish them again,
also long after their sender is gone. Such a heartbeat makes no member live (see `cluster.membership.members`). It is a
reason to send the member a request, whose answer is fresh: its MAC covers the request's number in a session with nonces
of both sides.
"""

import asyncio
from collections.abc import Awaitable, Callable

from registry.cluster.membership.members import Member

PROBES_AT_ONCE = 16
"""Probes of other sites' members that run together. Many instances that start at once would otherwise open sessions
with each other all at the same moment."""


class LivenessProbe:
    """Asks members whose heartbeats begin a life for a proof, each once at a time."""

    def __init__(self, own_site: str, probe: Callable[[Member], Awaitable[None]]) -> None:
        """`probe` sends a member a request; its answer counts where answers are taken in."""
        self._own_site = own_site
        self._probe = probe
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._far = asyncio.Semaphore(PROBES_AT_ONCE)

    def request(self, member: Member) -> None:
        """Probe a member, unless a probe of it is under way. Its next heartbeat is the next attempt."""
        if member.instance not in self._tasks:
            task = self._tasks[member.instance] = asyncio.create_task(self._run(member))
            task.add_done_callback(lambda _: self._tasks.pop(member.instance, None))

    async def _run(self, member: Member) -> None:
        if member.beat.site == self._own_site:
            await self._probe(member)  # its clients' reads depend on it
            return
        async with self._far:
            await self._probe(member)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()

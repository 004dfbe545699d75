"""Decommission: an instance leaves for good, and first hands over what it alone holds.

While it leaves, an instance keeps serving, takes no more replicas, and is not ready, so that balancers send requests
elsewhere. It proceeds in this order:

1. It hands over content until other members hold all linked content that it holds.
2. It refuses new writes, waits for those under way, and hands over what they have added.
3. It brings all its documents and manifest bodies to one member that stays.
4. It publishes its own removal, brings that to such a member too, since frames may be lost, and ends.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from registry.cluster.membership.content_handover import ContentHandover
from registry.cluster.membership.heartbeats import Heartbeats
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.members import Members
from registry.cluster.membership.removal import Removals
from registry.errors import Leaving
from registry.event_loop.now import now_s
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

LINGER_S = 2.0
"""Seconds for which a decommissioned instance goes on, so that members hear of it and a command that waits sees it."""
WRITES_POLL_S = 0.1
WRITES_TIMEOUT_S = 60.0
"""Seconds to wait for writes under way. Writes that end later are refused, since they may be lost."""


class HolderDuty(Protocol):
    """A part of an instance that acts for it as a holder of replicas."""

    def stop(self) -> None:
        """Cease for good: this instance leaves."""


class Decommission:
    """The decommission of this instance: `begin` requests it, and `run` carries it out."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        members: Members,
        handover: ContentHandover,
        removals: Removals,
        heartbeats: Heartbeats,
        duties: Sequence[HolderDuty],
    ) -> None:
        self._lifecycle = lifecycle
        self._members = members
        self._handover = handover
        self._removals = removals
        self._heartbeats = heartbeats
        self._duties = duties
        self._has_begun = asyncio.Event()
        self._refuses_writes = self._is_over = False
        self._writes = 0

    @property
    def under_way(self) -> bool:
        return self._lifecycle.is_leaving

    def begin(self) -> None:
        """Begin to leave for good, unless that has begun."""
        if not self.under_way:
            self._lifecycle.is_leaving = True
            for duty in self._duties:
                duty.stop()
            self._has_begun.set()

    async def run(self) -> None:
        """Wait until a decommission begins, and carry it out to its end."""
        await self._has_begun.wait()
        self._heartbeats.publish()
        await self.hand_over()
        await self._removals.remove(self._members.own_instance)
        await self._handover.hand_over_documents()
        self._lifecycle.has_left = True
        await asyncio.sleep(LINGER_S)
        log.warning(LogEvent.INSTANCE_DECOMMISSIONED, "this instance has left the cluster for good")
        self._lifecycle.may_end.set()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count a write while it runs. Raises Leaving when the write would be lost."""
        if self._refuses_writes:
            raise Leaving("this instance is leaving the cluster; push to another one")
        self._writes += 1
        try:
            yield
            if self._is_over:
                raise Leaving("this instance has left the cluster; push to another one")
        finally:
            self._writes -= 1

    async def hand_over(self) -> None:
        """Return once other members hold all linked content that is held here, and one has all facts that are here."""
        await self._handover.hand_over_content()
        self._refuses_writes = True
        until = now_s() + WRITES_TIMEOUT_S
        while self._writes and now_s() < until:
            await asyncio.sleep(WRITES_POLL_S)
        self._is_over = True
        await self._handover.hand_over_content()
        await self._handover.hand_over_documents()

    @property
    def waits_for(self) -> str:
        """The reason why this instance cannot leave yet, apart from content that no member takes; empty without one."""
        reachable = {member.instance for member in self._members.reachable()}
        if not self.under_way or reachable & {one.instance for one in self._members.replica_candidates()}:
            return ""
        if reachable:
            return "another instance that keeps copies: those that can be reached are proxy instances, or leave too"
        return "another instance that can be reached: none can now"

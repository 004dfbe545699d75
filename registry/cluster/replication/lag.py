"""Replication delay: the time from a change's stamp, which its sender sets just before its commit, to its commit here.

A fact carries the hybrid time of its push, so every change that brings facts gives its own age, by whichever way it
arrived: `frame` is the bus, `diff` is anti-entropy, where one update counts once, by its newest fact. Sender and
receiver read different wall clocks, so a delay includes their offset; a negative delay counts as zero. The first round
of an empty instance takes in changes as old as the registry, and is not counted.
"""

from crdt.clock import COUNTER_BITS
from registry.cluster.membership.members import Members
from registry.ports import Clock
from registry.telemetry.counters import Durations
from registry.units import to_s

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 3600.0)


class MemberDelay:
    """The replication delays of one member's changes."""

    __slots__ = ("count", "last_s", "total_s")

    def __init__(self) -> None:
        self.count = 0
        self.last_s = self.total_s = 0.0


class ReplicationDelays:
    """The replication delays of all members' changes, in buckets by site, and summed up by member."""

    def __init__(self, members: Members, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self.by_site: dict[tuple[str, str], Durations] = {}
        """Delays by the sender's site, and by `frame` or `diff`."""
        self.by_member: dict[str, MemberDelay] = {}

    def note(self, instance: str | None, time: int, by_frame: bool) -> None:
        """Count a change of an instance that is committed here, and whose newest fact has the hybrid time `time`."""
        member = self._members.get(instance or "")
        if member is None:
            return  # it has never been heard of: a writer's hint, or one that left the cluster long ago
        delay_s = to_s(max(self._clock.now_ms() - (time >> COUNTER_BITS), 0))
        key = (member.beat.site, "gossip" if by_frame else "anti-entropy")
        if key not in self.by_site:
            self.by_site[key] = Durations(BOUNDS_S)
        self.by_site[key].note(delay_s)
        delay = self.by_member.setdefault(member.instance, MemberDelay())
        delay.count += 1
        delay.last_s = delay_s
        delay.total_s += delay_s

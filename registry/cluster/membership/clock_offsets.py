"""Clock offsets: the differences between the wall clocks of other members and the clock of this instance.

A heartbeat carries its sender's wall clock. When it arrives, the sender's clock shows at least that time, so the
difference to the own clock is a lower bound of the offset. The highest bound of several heartbeats is too low by the
shortest time that one of them took. That needs no message of its own. When the bound exceeds half a second, the member
is asked each minute: the middle of a short request and its answer bounds the error on both sides (Cristian,
"Probabilistic clock synchronization", 1989), so that a slow bus is not taken for a wrong clock.

Samples are differences to a steady clock, so a jump of the own wall clock makes none of them wrong.
"""

from collections import deque

from registry.cluster.membership.members import Member
from registry.cluster.rpc.messages import Heartbeat
from registry.ports import Clock
from registry.units import to_s

SAMPLES = 8
"""Heartbeats that count: a clock that is set back is seen after so many, 16 s."""
MEASURE_OFFSET_S = 0.5
MEASUREMENT_VALID_S = 60.0
"""Seconds for which a measurement stays valid, from when the answer arrived."""
MAX_ERROR_S = 0.25
"""Largest error of a measurement, in seconds. An answer that took more than twice as long is not used."""
WARN_OFFSET_S = 1.0
"""Seconds of offset at which to warn: these clocks order concurrent pushes of a tag at two sites."""


class _Clock:
    """The samples of one member's clock, as seconds ahead of the own steady clock."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.heard: deque[float] = deque(maxlen=SAMPLES)
        self.measured_s = 0.0
        self.measured_at: float | None = None
        """Steady seconds of the last measurement that succeeded."""


class ClockOffsets:
    """The offsets of all members that were heard since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._members: dict[str, _Clock] = {}

    def on_heard(self, member: Member) -> None:
        """Note the clock of a heartbeat that has just come."""
        if member.beat.now_ms:
            self._of(member).heard.append(to_s(member.beat.now_ms) - self._clock.steady_s())

    def on_answer(self, member: Member, begun_s: float, answer: Heartbeat) -> None:
        """Note the clock of an answer to a request that was sent at `begun_s` of the steady clock."""
        now = self._clock.steady_s()
        if answer.now_ms and now - begun_s <= 2 * MAX_ERROR_S:
            known = self._of(member)
            known.measured_s = to_s(answer.now_ms) - (begun_s + now) / 2
            known.measured_at = now

    def offset_s(self, member: Member) -> float | None:
        """Return the seconds by which a member's clock is ahead of the own: negative when behind, None when unknown."""
        known = self._members.get(member.instance)
        if known is None or not known.heard:
            return None
        ahead_s = known.measured_s if self._is_measured(known) else max(known.heard)
        return ahead_s + self._clock.steady_s() - to_s(self._clock.now_ms())

    def is_too_far(self, member: Member) -> bool:
        """Return whether a member's clock is certainly more than a second off."""
        known, offset_s = self._members.get(member.instance), self.offset_s(member)
        return known is not None and offset_s is not None and self._is_measured(known) and abs(offset_s) > WARN_OFFSET_S

    def is_due(self, member: Member) -> bool:
        """Return whether a member is to be asked for its clock."""
        offset_s = self.offset_s(member)
        return offset_s is not None and abs(offset_s) > MEASURE_OFFSET_S and not self._is_measured(self._of(member))

    def forget(self, instances: set[str]) -> None:
        """Drop the samples of instances that are no longer members."""
        for instance in instances & self._members.keys():
            del self._members[instance]

    def _of(self, member: Member) -> _Clock:
        known = self._members.get(member.instance)
        if known is None or known.incarnation != member.beat.incarnation:  # it may run on another machine now
            known = self._members[member.instance] = _Clock(member.beat.incarnation)
        return known

    def _is_measured(self, known: _Clock) -> bool:
        return known.measured_at is not None and self._clock.steady_s() - known.measured_at < MEASUREMENT_VALID_S

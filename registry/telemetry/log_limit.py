"""A bound on how many lines one kind of event may write to the log.

Clients can cause some events as often as they like. A few lines of a burst stand for the others, which are counted, so
that no client can fill a disk or hide a line among a million.
"""

from registry.ports import Clock

AT_ONCE = 20
PERIOD_S = 10.0
UNAUTHENTICATED_PERIOD_S = 60.0
"""Interval for events that any stranger can cause: one line in this time shows that they go on, 1,440 lines a day."""


class LogLimit:
    """At most `at_once` lines in `every_s` for one kind of event."""

    def __init__(self, clock: Clock, at_once: int = AT_ONCE, every_s: float = PERIOD_S) -> None:
        self._clock = clock
        self._at_once, self._every_s = at_once, every_s
        self._since = -every_s
        self._written = 0
        self._left_out = 0

    def admit(self) -> dict[str, object] | None:
        """Return the fields that the next line carries, or None where the line is left out. The fields say how many
        lines were left out before it."""
        now = self._clock.steady_s()
        if self._since + self._every_s <= now:
            self._since, self._written = now, 0
        if self._written == self._at_once:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return {"left_out_before": left_out} if left_out else {}

"""A bound on how many lines one kind of event may write to the log.

Clients can cause some events as often as they like. A few lines of a burst stand for the others, which are counted, so
that nobody can fill a disk or hide a line among a million.
"""

from registry.seams import Clock

AT_ONCE = 20
EVERY_S = 10.0


class LogLimit:
    """At most `AT_ONCE` lines in `EVERY_S` for one kind of event."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = 0.0
        self._written = 0
        self._left_out = 0

    def admit(self) -> dict[str, object] | None:
        """Return the fields that the next line carries, or None where the line is left out. The fields say how many
        lines were left out before it."""
        now = self._clock.steady_s()
        if self._since + EVERY_S <= now:
            self._since, self._written = now, 0
        if self._written == AT_ONCE:
            self._left_out += 1
            return None
        self._written += 1
        left_out, self._left_out = self._left_out, 0
        return {"left_out_before": left_out} if left_out else {}

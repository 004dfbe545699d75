"""The hybrid logical clock that stamps facts.

One 64-bit integer: wall milliseconds in the upper 48 bits, a counter in the lower 16 (Kulkarni et al., "Logical
Physical Clocks", 2014, with the counter folded into one number). It decides only between pushes that did not see each
other: a push that saw another deletes its fact, and so wins whatever any clock says.
"""

MAX_AHEAD_MS = 60_000
COUNTER_BITS = 16


class HybridClock:
    """Stamps of one process: they only grow, near the wall clock, and above those it has seen (within a bound)."""

    def __init__(self) -> None:
        self.last = 0

    def tick(self, now_ms: int) -> int:
        """The next stamp, greater than every earlier one. `now_ms` is the wall clock, which may jump."""
        self.last = max(now_ms << COUNTER_BITS, self.last + 1)
        return self.last

    def observe(self, remote: int, now_ms: int) -> None:
        """Move past a stamp made elsewhere, unless it lies so far ahead that its clock must be wrong.

        A wrong clock is never a ground for refusing a fact; it is only not allowed to drag ours along.
        """
        if remote <= (now_ms + MAX_AHEAD_MS) << COUNTER_BITS:
            self.last = max(self.last, remote)

"""A bound on the share of the event loop that unauthenticated input takes.

The primary runs on one event loop. Input that any sender can cause without proof of identity must not keep it busy:
requests, heartbeats and health checks would wait behind it.
"""

BURST_S = 0.005
"""The longest uninterrupted run of such work: short enough that a request does not notice the wait."""


class LoopShare:
    """A share of the loop's time, as a bucket of seconds that fills at `share` per second."""

    def __init__(self, share: float) -> None:
        assert 0 < share < 1, "a share of the loop"
        self._share = share
        self._credit_s = BURST_S
        self._charged_at: float | None = None

    def charge(self, spent_s: float, now_s: float) -> float:
        """Note work that took `spent_s` and ended at `now_s`. Return for how long to rest now, in seconds."""
        since_s = now_s - self._charged_at if self._charged_at is not None else 0.0
        self._charged_at = now_s
        self._credit_s = min(self._credit_s + since_s * self._share, BURST_S) - spent_s
        return max(-self._credit_s / self._share, 0.0)

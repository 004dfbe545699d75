"""The machine's clock and its source of randomness."""

import os
import time


class SystemClock:
    """See `registry.ports.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady_s(self) -> float:
        return time.monotonic()

    def entropy(self, size: int) -> bytes:
        return os.urandom(size)

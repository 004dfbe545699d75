"""The read lease: the time until which the processes of an instance may answer reads from their rows.

One site is one registry: after a write was acknowledged at one instance, no other instance of the site may answer as if
it had not been. An instance that hangs, or is cut off from the bus, cannot know what it has missed. So its processes
answer reads only under a *read lease* (Gray and Cheriton, "Leases", SOSP 1989), which the other instances of the site
renew (`cluster.replication.site_lease`), and which ends by itself when its primary stops renewing it.

The lease is numbers in memory that the primary shares with its workers: until when it is valid, when a read last asked
for it, and whether a miss needs a request to a member. A lease that no read asks for is not renewed, so that an idle
site sends nothing.
"""

import mmap
from collections.abc import Callable

LEASE_S = 1.0
"""Seconds for which a lease is valid, from when its holder asked. A write waits this long for a member that hangs, and
reads stop this long after their primary stops."""
READ_WAIT_S = 10.0
"""Seconds for which a read waits for a lease. Clients wait for a first byte at least three times as long."""

_BYTES = 24
_VALID_UNTIL, _ASKED_AT, _ALLOWS_MISS = 0, 1, 2


class ReadLease:
    """The lease of one instance. Made before its processes are forked, it is shared by all of them.

    `steady_s` is a clock that never jumps and that all processes of the machine share (`Clock.steady_s`).
    """

    def __init__(self, steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._cells = memoryview(mmap.mmap(-1, _BYTES)).cast("d")  # eight bytes are stored in one step

    def allows_read(self) -> bool:
        """Return whether a read may be answered now, and note that a read has asked."""
        now = self._steady_s()
        self._cells[_ASKED_AT] = now
        return now < self._cells[_VALID_UNTIL]

    def allows_miss(self) -> bool:
        """Return whether a miss may be answered without a request to a member (`miss_state`)."""
        return self._cells[_ALLOWS_MISS] > 0 and self.allows_read()

    def set_allows_miss(self, value: bool) -> None:
        """Set whether a miss may be answered without a request, as long as the lease is valid."""
        self._cells[_ALLOWS_MISS] = value

    @property
    def is_valid(self) -> bool:
        return self._steady_s() < self._cells[_VALID_UNTIL]

    @property
    def asked_ago_s(self) -> float:
        """Return how many seconds ago a read last asked."""
        return self._steady_s() - self._cells[_ASKED_AT]

    def extend(self, until_s: float) -> None:
        """Set until when reads are allowed, on the clock of `steady_s`."""
        self._cells[_VALID_UNTIL] = until_s

"""Counts of the processes of an instance that died and were replaced.

The supervisor counts in a page of memory that it shares with all processes it forks. The counts survive the death of
the primary, which shows them in status and metrics. One process writes, so no lock is needed.
"""

import mmap
import struct
from collections.abc import Mapping

PRIMARY = "primary"
WORKER = "worker"
_ROLES = (PRIMARY, WORKER)
_COUNT = struct.Struct("=Q")


class Deaths:
    """Counts by role since the supervisor began."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def count(self, role: str) -> None:
        """In the supervisor: note that a process has died."""
        _COUNT.pack_into(self._page, _ROLES.index(role) * _COUNT.size, self.counts()[role] + 1)

    def counts(self) -> Mapping[str, int]:
        """In any process: how many have died so far."""
        return {role: _COUNT.unpack_from(self._page, at * _COUNT.size)[0] for at, role in enumerate(_ROLES)}

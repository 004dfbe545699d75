"""One bound on the bytes of all uploads that are in memory, between the socket and the disk.

Bytes gather to pieces of a MiB before they are hashed and written, and one piece is written while the next one gathers.
With many clients that adds up. When the bound is reached, nothing more is received until a piece was written. Pieces
are then written at once, however small, so that a client that stops sending keeps no bytes in memory and no other
client waiting.

In addition each connection holds the bytes of one read, some hundred KiB, and fast connections have larger buffers
within a bound of their own (`http.wire.large_body`).
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Protocol

from registry.units import MIB

MAX_BYTES = 64 * MIB
"""Pieces for all threads of an executor, several times over. The processes of an instance share it."""
MIN_BYTES = 8 * MIB
"""The part of one process is no smaller, however many there are."""
FLUSH_INTERVAL_S = 0.05
"""Seconds between two calls to all uploads to write their bytes, while others wait."""


class Holder(Protocol):
    """An upload that has bytes in memory."""

    def write_out(self) -> None:
        """Begin to write what has gathered."""


class UploadMemory:
    """The bytes of all uploads of one process that are in memory."""

    def __init__(self, processes: int = 1) -> None:
        """`processes` is how many of them the instance has."""
        self._processes = processes
        self._held: dict[Holder, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.held_bytes = 0

    @property
    def is_shared(self) -> bool:
        """Return whether several uploads have bytes in memory."""
        return len(self._held) > 1

    @property
    def max_bytes(self) -> int:
        """The part of this process in what the instance may have in memory."""
        return max(MAX_BYTES // self._processes, min(MIN_BYTES, MAX_BYTES))

    async def wait_for_room(self) -> None:
        """Return once something may be received. Many may be let through at once, each for one piece."""
        while self.held_bytes >= self.max_bytes:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            if self._timer is None:
                self._look()
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.cancelled():
                    with suppress(ValueError):
                        self._waiters.remove(waiter)
                else:
                    self._wake()  # the next one in our place
                raise
        self._wake()

    def take(self, holder: Holder, size_bytes: int) -> None:
        """Record that a holder has so many bytes more."""
        self._held[holder] = self._held.get(holder, 0) + size_bytes
        self.held_bytes += size_bytes

    def release(self, holder: Holder, size_bytes: int) -> None:
        """Record that a holder has so many bytes less."""
        left = self._held.pop(holder) - size_bytes
        assert left >= 0, "a holder releases no more than it has taken"
        if left:
            self._held[holder] = left
        self.held_bytes -= size_bytes
        self._wake()

    def _wake(self) -> None:
        """Wake the next waiter if there is room; it wakes the one after it once it has taken its part."""
        while self._waiters and self.held_bytes < self.max_bytes:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _look(self) -> None:
        """Have all uploads write their bytes, at intervals, as long as others wait."""
        self._timer = None
        if self._waiters:
            for holder in list(self._held):
                holder.write_out()
            self._timer = asyncio.get_running_loop().call_later(FLUSH_INTERVAL_S, self._look)

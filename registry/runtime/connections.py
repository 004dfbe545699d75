"""Sharing clients' connections out among the processes that listen on one socket.

The kernel wakes all of them for a new connection, and the first one that asks has it. That is mostly the same one, so
that few clients with many requests would be served by one core. Here a process that has more connections than another
one leaves a new one to that for a moment (as "least connections" of load balancers). After the moment it takes the
connection, so that a process that hangs costs the others' clients no more than that.

The primary leaves all connections to the workers as long as there are any: its time is for commits.
"""

import asyncio
import errno
import math
import mmap
import socket
from collections.abc import Callable
from typing import Any

from registry.storage.upload_homes import PRIMARY_SLOT, ProcessSlot

LEAVE_S = 0.002
"""Time for which a worker leaves a connection to one that has fewer: several turns of the loop of an idle one."""
PRIMARY_LEAVES_S = 0.02
EXHAUSTED_PAUSE_S = 0.1
"""Time for which a process that may open no more files takes no connection."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class ConnectionCounts:
    """The number of connections of each process, in memory that they share; infinite for one that takes none. Made
    before they are forked."""

    def __init__(self, processes: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * processes)).cast("d")  # eight bytes are stored in one step
        for slot in range(processes):
            self.set(slot, math.inf)

    def set(self, slot: int, count: float) -> None:
        """Publish the count of a process."""
        self._cells[slot] = count

    def add(self, slot: int, change: int) -> None:
        """Publish that the count of a process has changed."""
        self._cells[slot] += change

    def takes(self, slot: int) -> bool:
        """Return whether a process is to take the next connection: none has fewer."""
        return self._cells[slot] <= min(self._cells)


class OpenConnections(set[Any]):
    """Connections of one process, which publishes their number as they come and go. Those whose handshake is under way
    are in another set than those that are served."""

    def __init__(self, counts: ConnectionCounts, slot: int) -> None:
        super().__init__()
        self._counts, self._slot = counts, slot

    def add(self, connection: Any) -> None:
        if connection not in self:
            super().add(connection)
            self._counts.add(self._slot, 1)

    def discard(self, connection: Any) -> None:
        if connection in self:
            super().discard(connection)
            self._counts.add(self._slot, -1)


class SharedListener:
    """The listening socket in one process."""

    def __init__(
        self,
        listening: socket.socket,
        counts: ConnectionCounts,
        slot: ProcessSlot,
        on_connection: Callable[[socket.socket], None],
    ) -> None:
        listening.setblocking(False)
        self._socket = listening
        self._counts = counts
        self._slot = slot.number
        self._leave_s = PRIMARY_LEAVES_S if slot.number == PRIMARY_SLOT else LEAVE_S
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        self._left: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening.fileno(), self._on_waiting)

    def _on_waiting(self) -> None:
        """Take a connection that waits, or leave it for a moment."""
        if self._counts.takes(self._slot):
            self._accept()
        else:
            self._leave(self._leave_s)

    def _leave(self, pause_s: float) -> None:
        """Leave what waits to other processes for a moment."""
        self._loop.remove_reader(self._socket.fileno())
        self._left = self._loop.call_later(pause_s, self._after_leaving)

    def _after_leaving(self) -> None:
        self._left = None
        self._loop.add_reader(self._socket.fileno(), self._on_waiting)
        self._accept()  # unless another process has

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._leave(EXHAUSTED_PAUSE_S)
            return  # another process has it, or its client has gone
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_connection(connection)

    def close(self) -> None:
        """Take no more connections."""
        if self._left is not None:
            self._left.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
        self._counts.set(self._slot, math.inf)

    async def wait_closed(self) -> None:
        """Return at once: `close` waits for nothing."""

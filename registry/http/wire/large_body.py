"""A large body whose length is known: straight from the socket into memory that the application is given, but for
small pieces, which are copied.

Through uvloop's own buffer, the HTTP parser and uvicorn's each byte would be copied up to three times more. Until the
body ends, this object is the connection's protocol. It reads no byte after the body.
"""

import asyncio
from collections import deque
from typing import Protocol

from registry.units import KIB, MIB

INITIAL_BUFFER_BYTES = 64 * KIB
MAX_BUFFER_BYTES = MIB
"""The largest buffer: so many bytes are received before the application asks for them."""
MAX_POOLED_BUFFERS = 16
MAX_LENT_BYTES = 64 * MIB
"""Over all connections, for buffers that are larger than `INITIAL_BUFFER_BYTES`."""


class _Buffer(bytearray):
    """Memory that counts as long as a view of it exists."""

    lent_bytes = 0

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        _Buffer.lent_bytes += size_bytes

    def __del__(self) -> None:
        type(self).lent_bytes -= len(self)


class BufferPool:
    """Memory for bodies, bounded over all connections. Buffers of `MAX_BUFFER_BYTES` are used again: filling new
    ones with zeros would cost as much as receiving into them."""

    def __init__(self) -> None:
        self._kept: deque[_Buffer] = deque()

    def get(self, size_bytes: int) -> memoryview:
        """Return memory for one body, of `INITIAL_BUFFER_BYTES` if the bound is reached. A buffer is used again once no
        view of it, or of a part of it, is left."""
        if size_bytes == MAX_BUFFER_BYTES:
            for _ in range(len(self._kept)):
                buffer = self._kept[0]
                self._kept.rotate(-1)
                if _is_unused(buffer):
                    return memoryview(buffer)
        if size_bytes <= INITIAL_BUFFER_BYTES or _Buffer.lent_bytes + size_bytes > MAX_LENT_BYTES:
            return memoryview(bytearray(INITIAL_BUFFER_BYTES))
        buffer = _Buffer(size_bytes)
        if size_bytes == MAX_BUFFER_BYTES and len(self._kept) < MAX_POOLED_BUFFERS:
            self._kept.append(buffer)
        return memoryview(buffer)


BUFFER_POOL = BufferPool()


class BodyListener(Protocol):
    """The connection that a large body stands in for."""

    def on_body_received(self) -> None:
        """Handle the arrival of some of the body."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class LargeBody(asyncio.BufferedProtocol):
    """One large body, from its first byte on."""

    def __init__(self, length: int, connection: BodyListener) -> None:
        self.remaining_bytes = length
        """Bytes that have not arrived yet."""
        self._connection = connection
        self._piece = memoryview(b"")
        self._filled = 0
        self._full: deque[memoryview] = deque()
        self._next_bytes = INITIAL_BUFFER_BYTES

    @property
    def has_data(self) -> bool:
        """True if bytes have arrived that were not taken."""
        return bool(self._full or self._filled)

    @property
    def has_full_buffer(self) -> bool:
        """True if no more may be received before some of it is taken."""
        return bool(self._full)

    def take(self) -> memoryview | bytes:
        """Return received bytes. A caller that keeps them keeps a whole buffer from being used again."""
        piece: memoryview | bytes
        if not self.has_data:
            return b""
        if self._full:
            piece = self._full.popleft()
        else:
            piece = self._piece[: self._filled]
            if len(piece) < len(self._piece) / 2:
                piece = bytes(piece)  # many slow senders would otherwise hold much memory for few bytes
            self._piece, self._filled = memoryview(b""), 0
        # A body that is taken as fast as it arrives gets larger buffers; a slow one holds little memory.
        self._next_bytes = min(max(2 * len(piece), INITIAL_BUFFER_BYTES), MAX_BUFFER_BYTES)
        return piece

    def drop(self) -> None:
        """Discard the bytes that have arrived."""
        self._full.clear()
        self._piece, self._filled = memoryview(b""), 0

    def put(self, beginning: bytes | bytearray) -> None:
        """Add the bytes that arrived with the head, which must not exceed the length of the body."""
        while beginning:
            room = self.get_buffer(-1)
            size = min(len(room), len(beginning))
            room[:size] = beginning[:size]
            beginning = beginning[size:]
            self.buffer_updated(size)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._filled == len(self._piece):
            room = BUFFER_POOL.get(self._next_bytes)
            self._piece, self._filled = room[: self.remaining_bytes], 0
        return self._piece[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self.remaining_bytes -= nbytes
        self._filled += nbytes
        if self._filled == len(self._piece):
            self._full.append(self._piece)
            self._piece, self._filled = memoryview(b""), 0
        self._connection.on_body_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def _is_unused(buffer: bytearray) -> bool:
    """Return whether no view of a buffer is left: while one exists, its size cannot be changed."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True

"""Frames on a link between processes: a kind of one byte, a length of four, and a payload.

What the two ends say to each other (`runtime.relay`, `runtime.commit_link`) needs a `Link` and a `LinkOpener`, and no
socket, so that simulations run the same code.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

from registry.units import MIB

BUFFER_BYTES = MIB
"""The kernel's buffer of a link, and the bytes that its reader takes ahead."""

_HEADER = struct.Struct(">cI")


class Link(Protocol):
    """One end of a link that carries frames."""

    async def read(self) -> tuple[bytes, bytes]:
        """Return the next frame's kind and payload. Raises ConnectionError when the link has ended."""

    def write(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a frame, now or when there is room."""

    async def drain(self) -> None:
        """Wait until the other end has taken most of what was sent. Raises ConnectionError."""

    @property
    def is_broken(self) -> bool:
        """Return whether the link has ended, as far as that is known."""

    def close(self) -> None:
        """End the link once what was written has been sent."""

    def abort(self) -> None:
        """End the link at once."""


OnLink = Callable[[bytes, Awaitable[Link]], None]
"""Given the kind of a link that another process has opened, and the link once it is set up."""


class LinkOpener(Protocol):
    """The way to open links to the other processes of an instance."""

    async def connect(self, slot: int, kind: bytes) -> Link:
        """Open a link to a process. Raises ConnectionError."""


class LinkSource(Protocol):
    """The links that other processes open to this one."""

    def start(self, on_link: OnLink) -> None:
        """Begin to take links."""

    def close(self) -> None:
        """Take no more links."""


class FrameLink:
    """One end of a link over a socket. One task reads at a time; a read that is cancelled loses nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._header: tuple[bytes, int] | None = None

    @classmethod
    async def over(cls, connected: socket.socket) -> "FrameLink":
        """Return the end of a link over a connected socket."""
        return cls(*await asyncio.open_unix_connection(sock=connected, limit=BUFFER_BYTES))

    async def read(self) -> tuple[bytes, bytes]:
        """Return the next frame's kind and payload. Raises ConnectionError when the link has ended."""
        try:
            if self._header is None:
                self._header = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            kind, size = self._header
            payload = await self._reader.readexactly(size) if size else b""
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the process at the other end has ended") from None
        self._header = None
        return kind, payload

    def write(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        """Send a frame, now or when there is room."""
        if len(payload) < BUFFER_BYTES // 16:
            self._writer.write(_HEADER.pack(kind, len(payload)) + payload)
        else:
            self._writer.write(_HEADER.pack(kind, len(payload)))
            self._writer.write(payload)

    async def drain(self) -> None:
        """Wait until the other end has taken most of what was sent. Raises ConnectionError."""
        await self._writer.drain()

    @property
    def is_broken(self) -> bool:
        """Return whether the link has ended, as far as that is known."""
        return self._writer.is_closing() or self._reader.at_eof()

    def close(self) -> None:
        """End the link once what was written has been sent."""
        self._writer.close()

    def abort(self) -> None:
        """End the link at once."""
        self._writer.transport.abort()

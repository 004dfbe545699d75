"""Closing a connection without harm to the last response on it.

A socket that is closed while bytes of the client are unread resets the connection, and the reset destroys the response
of a client that sends its whole request before it reads (RFC 9112, section 9.6). `LingeringTransport` therefore closes
its sending direction first, and discards what it receives until the client closes, within bounds.

HTTP/1.0 has no chunked coding (RFC 9112, section 6.1), so a body of unknown length ends with the connection. The
framing does not tell a truncated body from a whole one, so such a body must be invalid without its end. Lists are the
only such bodies, and they are JSON.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LINGER_TIMEOUT_S = 30.0
"""Time that a client has to send the rest of a body that nothing waits for: the same as on a connection that stays
open."""
SILENCE_TIMEOUT_S = 2.0
"""Silence after which a client is expected to send nothing more."""
WITHOUT_BODY = (204, 304)


class LingeringTransport(asyncio.Transport):
    """A connection's transport, which lingers where `has_unread` says that the client may be sending."""

    def __init__(self, transport: asyncio.Transport, has_unread: Callable[[], bool]) -> None:
        super().__init__()
        self._transport = transport
        self._has_unread = has_unread
        self._is_lingering = False
        # The methods that are called for each answer bypass this class.
        self.write = transport.write  # type: ignore[method-assign]
        self.get_write_buffer_size = transport.get_write_buffer_size  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]
        self.set_protocol = transport.set_protocol  # type: ignore[method-assign]
        self.get_protocol = transport.get_protocol  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.abort = transport.abort  # type: ignore[method-assign]
        self.close_now = transport.close

    def is_closing(self) -> bool:
        """True if no answer can be written any more."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close after what was written."""
        if self._has_unread():
            self.linger(sys.maxsize)
        else:
            self._transport.close()

    def linger(self, most_bytes: int) -> None:
        """Close after what was written, once the client has closed or `most_bytes` more have come."""
        if not self.is_closing():
            self._is_lingering = True
            _Discarding(self._transport, most_bytes)


class _Discarding(asyncio.Protocol):
    """The protocol of a connection that lingers, in place of its own."""

    def __init__(self, transport: asyncio.Transport, most_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self._transport = transport
        self._connection: Any = transport.get_protocol()
        self._bytes_left = most_bytes
        self._is_silent = True
        self._until_s = loop.time() + LINGER_TIMEOUT_S
        transport.set_protocol(self)
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()
        self._timer = loop.call_later(SILENCE_TIMEOUT_S, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._is_silent or loop.time() > self._until_s:
            self._transport.close()
        else:
            self._is_silent = True
            self._timer = loop.call_later(SILENCE_TIMEOUT_S, self._look)

    def data_received(self, data: bytes) -> None:
        self._is_silent = False
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def ending_with_the_connection(app: ASGIApp, cycle: RequestResponseCycle) -> ASGIApp:
    """Return `app` with answers of unknown length framed as in HTTP/1.0."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        is_open = False

        async def send_without_chunks(message: Message) -> None:
            nonlocal is_open
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
                has_body = scope["method"] != "HEAD" and message["status"] not in WITHOUT_BODY
                is_open = has_body and not has_length
                if is_open:
                    cycle.chunked_encoding, cycle.expected_content_length = False, sys.maxsize
            elif is_open and not message.get("more_body", False):
                cycle.expected_content_length = len(message["body"])
            await send(message)

        await app(scope, receive, send_without_chunks)

    return run

"""HTTP on the wire: uvicorn's protocol, with bounds on what it leaves open, and a short way for what can be answered at
once.

It would wait for ever for a head that does not end and for a next request after a stray byte, keep header fields and
trailers of any size, and take the body of a request that offers an upgrade for something else.

A request for which the application has a direct answer (`http.direct`) is answered where its head ends. That is a third
of the cost of a task, a scope and messages.
"""

import asyncio
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from registry.http.direct import Headers

MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 30.0

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"
_NO_UPGRADE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class AnswersDirectly(Protocol):
    """What the application offers beside being called."""

    def direct(self, method: str, target: bytes, headers: Headers) -> tuple[bytes, bytes] | None:
        """The head, but for the status line, and the body of an answer of status 200 that can be given at once."""


class BoundedProtocol(HttpToolsProtocol):
    """See the module."""

    _deadline: asyncio.TimerHandle | None = None
    _in_head = False
    _refused = False
    _answered = False
    """Whether the present request was answered where its head ended."""
    _progress = False
    """Whether the last piece of data began or ended a head, or held some of a body."""
    _fruitless_bytes = 0

    def __init__(self, *arguments: Any, received: bytes = b"", **named: Any) -> None:
        """`received` has come on the connection before it is ours."""
        super().__init__(*arguments, **named)
        self._received = received

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_deadline()
        if self._received:
            self.data_received(self._received)
            self._received = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._progress = False
        super().data_received(data)
        self._fruitless_bytes = 0 if self._progress else self._fruitless_bytes + len(data)
        if self._fruitless_bytes > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)
        elif self._deadline is None and (self._in_head or (self.timeout_keep_alive_task is None and self._is_idle())):
            self._set_deadline()

    # What the parser finds

    def on_message_begin(self) -> None:
        self._in_head = self._progress = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._progress = False, True
        self._clear_deadline()
        names = {name for name, value in self.headers if value != b"0"}
        if self.parser.should_upgrade() and not names.isdisjoint((b"content-length", b"transfer-encoding")):
            self._refuse(_NO_UPGRADE)
            return
        self._answered = self._answer_directly()
        if not self._answered:
            self._call_application()

    def _call_application(self) -> None:
        super().on_headers_complete()

    def _answer_directly(self) -> bool:
        if self.transport.is_closing():
            return True  # what follows a last answer is nobody's
        if not self._is_idle() or self.flow.write_paused or self.parser.get_http_version() != "1.1":
            return False
        found = cast(AnswersDirectly, self.app).direct(self.parser.get_method().decode("ascii"), self.url, self.headers)
        if found is None:
            return False
        head, body = found
        parts = [_OK, head]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        is_last = not self.parser.should_keep_alive()
        parts += (b"connection: close\r\n\r\n" if is_last else b"\r\n", body)
        self.transport.write(b"".join(parts))
        if is_last:
            self.transport.close()
        else:
            self.on_response_complete()
        return True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if not self._refused and not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        if not self._refused and not self._answered:
            super().on_message_complete()

    # What comes of it

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, answer: bytes) -> None:
        self._refused = True
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def _set_deadline(self) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

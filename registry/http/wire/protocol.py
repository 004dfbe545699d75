"""HTTP/1.1 on one connection: uvicorn's protocol with bounds, and a fast path.

uvicorn alone would wait for ever for a head that does not end and for a request after a stray byte, keep header fields
and trailers of any size, misread the body of a request that offers an upgrade, begin any number of pipelined requests,
and keep responses that the client does not read.

Offers of another protocol are ignored (RFC 9110, section 7.8). The parser ends such a request at its head, so that its
body would be taken for the next request. The head is therefore parsed again without the offer.

The parser receives one head at a time. One request of a connection is under way, and later ones wait as bytes. After
some pipelined requests, other connections have a turn.

Invariant: responses leave in the order of their requests. A refusal waits for the responses to earlier requests, which
may have been carried out: otherwise a client would read the refusal as the response to one of them. A refusal that
would stand within a response, or after the response to the same request, is not sent.

A request that the fast path can answer (`http.wire.fast_path`) is answered where its head ends. That costs a third of a
task, a scope and messages.

A large body of known length bypasses the parser (`http.wire.large_body`).
"""

import asyncio
import contextlib
import http
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import httptools
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from registry.http.wire.client_certificate import CLIENT_CERTIFICATE, read_subject
from registry.http.wire.closing import LingeringTransport, ending_with_the_connection
from registry.http.wire.fast_path import DirectAnswer, Headers
from registry.http.wire.heads import NO_HTTP, NO_TUNNEL, TOO_LARGE, Refusal, refusal_of, without_offer
from registry.http.wire.large_body import LargeBody
from registry.http.wire.tls_transport import TlsTransport
from registry.units import KIB, MIB

MAX_HEAD_BYTES = 64 * KIB
HEAD_TIMEOUT_S = 30.0
"""Time in which the head of a request must arrive."""
HEADS_AT_ONCE = 32
MAX_PIPELINED = 8
LARGE_BODY_BYTES = 256 * KIB
MAX_LENGTH_DIGITS = 18
UNREAD_TIMEOUT_S = 60.0
"""Time after which a client that reads nothing is disconnected."""
LINGER_BYTES = 4 * MIB
"""Bytes that are read and discarded after a refusal: the largest manifest, which clients send before they read."""

_HEAD_END = b"\r\n\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in (http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND)
}


class FastPathApp(Protocol):
    """An application that can answer some requests without a task."""

    def direct(self, method: str, target: bytes, headers: Headers) -> DirectAnswer | None:
        """Return an answer that can be given at once, or None."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds, the fast path, and large bodies that bypass the parser."""

    _deadline: asyncio.TimerHandle | None = None
    _in_message = False
    """True if the parser has the beginning of a request and not yet its end."""
    _in_head = False
    _current: RequestResponseCycle | None = None
    """The request whose answer is next, or was the last one."""
    _refused = False
    """True if nothing more is taken."""
    _refusal = b""
    """The last answer, for which no earlier one is under way."""
    _answered = False
    """True if the present request was answered where its head ended."""
    _progress = False
    """True if the last piece of data began or ended a head, or held some of a body."""
    _fruitless_bytes = 0
    _tail = b""
    """The last bytes of a head of which the parser has a part."""
    _head_piece = b""
    """The piece that the parser receives, unless it begins within a body. It ends where a head ends, if one does."""
    _large_body: LargeBody | None = None
    """The body that bypasses the parser."""
    _closes_after_response = False
    """True if the connection ends with the answer to the present request, or to the next one."""
    client_certificate: str | None = None
    """The subject of the client's certificate; None without one."""
    _unread_bytes = 0
    _read_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, closes_after_response: bool = False, **named: Any) -> None:
        """`closes_after_response` allows one more request."""
        super().__init__(*arguments, **named)
        self._closes_after_response = closes_after_response
        self._pending = bytearray()
        """Received bytes that the parser has not been given."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if transport.get_extra_info("sslcontext") is not None:
            transport = TlsTransport(transport)
        super().connection_made(LingeringTransport(transport, self._has_unread))
        self.client_certificate = read_subject(transport.get_extra_info("ssl_object"))
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self._pending.clear()
        if self._read_timer is not None:
            self._read_timer.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # it would keep what was not read

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._pending and self._is_one_piece(data):
            self._parse_piece(data)  # as nearly always, and without a copy
        else:
            self._pending += data
            self._parse_pending()

    def _is_one_piece(self, data: bytes) -> bool:
        """True if the parser may have all of it at once: some of a body, or the one head that it is."""
        if self._in_message:
            return not self._in_head
        end = data.find(_HEAD_END)
        return self._may_begin_next() and end > 0 and end + len(_HEAD_END) == len(data) and data[0] not in b"\r\n"

    def _parse_pending(self) -> None:
        """Give the parser what has come, as far as it may have it now."""
        heads = 0
        while self._pending and not self._refused and not self.transport.is_closing():
            if not self._in_message:
                if not self._may_begin_next():
                    self.flow.pause_reading()
                    return
                if heads == HEADS_AT_ONCE:
                    self.flow.pause_reading()
                    self.loop.call_soon(self._resume)
                    return
                heads += 1
            self._parse_piece(self._next_piece())

    def _resume(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            self._parse_pending()

    def _may_begin_next(self) -> bool:
        """True if the next request may begin: one after the other."""
        return self._is_idle()

    def _next_piece(self) -> bytes:
        """Return the data up to the end of a head; within a body, all of it."""
        end = len(self._pending)
        if not self._in_message or self._in_head:
            strays = end - len(self._pending.lstrip(b"\r\n")) if not self._in_message else 0
            if strays:
                end = strays  # alone: the end of a head is searched after them
            else:
                found = (self._tail + self._pending).find(_HEAD_END)
                if found >= 0:
                    end = found + len(_HEAD_END) - len(self._tail)
        piece = bytes(self._pending[:end])
        del self._pending[:end]
        return piece

    def _parse_piece(self, piece: bytes) -> None:
        self._progress = False
        self._head_piece = piece if not self._in_message or self._in_head else b""
        self._parse(piece)
        self._tail = (self._tail + piece)[-3:] if self._in_head else b""
        self._fruitless_bytes = 0 if self._progress else self._fruitless_bytes + len(piece)
        if self._fruitless_bytes > MAX_HEAD_BYTES:
            self._refuse(TOO_LARGE)
        elif self._deadline is None and (self._in_head or (self.timeout_keep_alive_task is None and self._is_idle())):
            self._set_deadline()
        if self._large_body is not None:
            self._begin_large_body(self._large_body)

    def _parse(self, data: bytes) -> None:
        """Do as uvicorn does with `data`, except that a head that offers another protocol is parsed again without the
        offer, and what follows the head after it."""
        self._unset_keepalive_if_required()
        waiting: list[bytes | memoryview] = [data]
        while waiting:
            piece = waiting.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as offer:
                if self._refused:
                    return
                rest = memoryview(piece)[offer.args[0] :]
                head = without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
                self.parser = new_parser(self)
                waiting += [rest, head] if rest else [head]
            except httptools.HttpParserError:
                self._refuse(NO_HTTP)
                return

    def _begin_large_body(self, body: LargeBody) -> None:
        """Have a body bypass the parser."""
        self.transport.set_protocol(body)
        beginning = self._pending[: body.remaining_bytes]
        del self._pending[: body.remaining_bytes]
        body.put(beginning)

    def on_body_received(self) -> None:
        """Some of a large body is here."""
        body, cycle = self._large_body, self.cycle
        assert body is not None, "one is under way"
        self._unset_keepalive_if_required()
        if self._refused or cycle.response_complete:
            body.drop()
            if self._deadline is None:
                self._set_deadline()  # the rest of it is not wanted
        else:
            if body.has_full_buffer:
                self.flow.pause_reading()
            cycle.message_event.set()
        if not body.remaining_bytes:
            self._large_body = None
            self.transport.set_protocol(self)
            self.parser = new_parser(self)  # the other one waits for the body, and there is no way to tell it
            self.on_message_complete()

    def _receive_from(self, body: LargeBody) -> Callable[[], Awaitable[Any]]:
        """The application's `receive` for a large body: uvicorn's, but for the bytes."""
        cycle, ordinary = self.cycle, self.cycle.receive

        async def receive() -> Any:
            if not body.has_data:
                message = await ordinary()
                if message["type"] != "http.request":
                    return message
            piece = body.take()
            self.flow.resume_reading()
            return {"type": "http.request", "body": piece, "more_body": cycle.more_body or body.has_data}

        return receive

    # What the parser finds

    def on_message_begin(self) -> None:
        self._in_message = self._in_head = self._progress = True
        super().on_message_begin()
        if self.client_certificate is not None:
            cast(dict[str, Any], self.scope)[CLIENT_CERTIFICATE] = self.client_certificate

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else it is a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        is_tunnel = method == b"CONNECT"
        if self.parser.should_upgrade() and not is_tunnel:
            return  # the head comes again, without the offer
        self._progress = True
        self._clear_deadline()
        refusal = NO_TUNNEL if is_tunnel else refusal_of(version, self.headers)
        if refusal is not None:
            self._refuse(refusal, has_body=method != b"HEAD")
            return
        if len(self.pipeline) >= MAX_PIPELINED:  # after a body whose end only the parser finds
            self._refuse()  # a client repeats what was not answered (RFC 9112, section 9.3.2)
            return
        self._in_head = False
        if version == "1.0":
            self.expect_100_continue = False  # HTTP/1.0 knows no interim answers
        self._answered = self._answer_by_fast_path()
        if not self._answered:
            self._call_application()

    def _call_application(self) -> None:
        super().on_headers_complete()
        if self._closes_after_response:
            self.close_after_response()
        length = self._large_length()
        if length:
            self._large_body = LargeBody(length, self)
            cast(Any, self.cycle).receive = self._receive_from(self._large_body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        self._current = cycle
        if cycle.scope["http_version"] == "1.0":
            app = ending_with_the_connection(app, cycle)
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _large_length(self) -> int:
        """Return the length of the body if it can bypass the parser, else 0. It cannot if the parser has a part of it
        already, because its head came after another body."""
        if not (self._tail + self._head_piece[-len(_HEAD_END) :]).endswith(_HEAD_END):
            return 0
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS or int(length) < LARGE_BODY_BYTES:
            return 0
        return int(length)

    def _answer_by_fast_path(self) -> bool:
        if self.transport.is_closing():
            return True  # what follows the last response is ignored
        if not self._is_idle() or self.flow.write_paused or self.parser.get_http_version() != "1.1":
            return False
        method = self.parser.get_method().decode("ascii")
        found = cast(FastPathApp, self.app).direct(method, self.url, self.headers)
        if found is None:
            return False
        parts = [_STATUS_LINES[found.status], found.head]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        closes_after_response = self._closes_after_response or not self.parser.should_keep_alive()
        parts += (b"connection: close\r\n\r\n" if closes_after_response else b"\r\n", found.body)
        self.transport.write(b"".join(parts))
        if closes_after_response:
            self._lingering.close_now()  # there is no body to come
        else:
            super().on_response_complete()
        return True

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if not self._refused and not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._progress, self._in_message = True, False
        if not self._refused and not self._answered:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._large_body is not None:
            self._large_body.drop()
        vars(self.cycle).pop("receive", None)  # of a large body, which would keep itself
        super().on_response_complete()
        if self._refused and not self._has_response_due():
            self._end_refused()
        elif self._pending:
            self.loop.call_soon(self._resume)

    def close_after_response(self) -> None:
        """Close the connection after the answer to the present request, or to the next one."""
        self._closes_after_response = True
        if not self._is_idle():
            self.cycle.keep_alive = False

    def end_identity(self) -> None:
        """Close a connection whose client has identified itself by a certificate, at once or after the answer to the
        present request: who signed the certificate may not be trusted any more."""
        if self.client_certificate is not None:
            if self._is_idle() and not self._in_message:
                self.transport.close()
            else:
                self.close_after_response()

    # What comes of it

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _has_response_due(self) -> bool:
        """True if an answer is under way or to come."""
        running = self._current
        is_running = running is not None and not (running.response_complete or running.disconnected)
        return is_running or bool(self.pipeline)

    def _has_unread(self) -> bool:
        """True if the client may be sending what nothing will read."""
        return self._in_message or bool(self._pending)

    @property
    def _lingering(self) -> LingeringTransport:
        return cast(LingeringTransport, self.transport)

    def _refuse(self, refusal: Refusal | None = None, has_body: bool = True) -> None:
        """Read no further requests, and end the connection after the answers to earlier ones. The refusal, if there is
        one, is the last answer."""
        if self._refused:
            return
        self._refused = True
        self._pending.clear()
        if self._in_message and not self._in_head and not self._abandon_current():
            refusal = None
        if refusal is not None:
            self._refusal = self._rendered(refusal, has_body)
        if not self._has_response_due():
            self._end_refused()
        elif refusal is None:
            (self.pipeline[0][0] if self.pipeline else cast(Any, self._current)).keep_alive = False

    def _abandon_current(self) -> bool:
        """Abort the request of whose body the parser has a part. Return False where an answer to it has begun."""
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # it was not begun
            self.cycle = self.pipeline[0][0] if self.pipeline else cast(Any, self._current)
            return True
        if cycle.response_started:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _rendered(self, refusal: Refusal, has_body: bool) -> bytes:
        body = refusal.reason.encode() + b"\n"
        head = [f"HTTP/1.1 {refusal.status} {http.HTTPStatus(refusal.status).phrase}\r\n".encode()]
        head += [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        head += [b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(body)]
        return b"".join([*head, b"connection: close\r\n\r\n", body if has_body else b""])

    def _end_refused(self) -> None:
        if self.transport.is_closing():
            return
        if self._refusal:
            self.transport.write(self._refusal)
            self._lingering.linger(LINGER_BYTES)
        else:
            self._lingering.close_now()

    def _set_deadline(self) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._refuse)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Clients that read nothing

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_read_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _start_read_timer(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self._check_reading)

    def _check_reading(self) -> None:
        """Close the connection of a client that has read nothing for UNREAD_TIMEOUT_S, since its response fills memory.
        A slow reader keeps its connection."""
        if 0 < self._unread_bytes <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._start_read_timer()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # the last answer was not read in all that time
        else:
            super().timeout_keep_alive_handler()


def new_parser(protocol: BoundedProtocol) -> httptools.HttpRequestParser:
    """A parser as uvicorn makes it."""
    parser = httptools.HttpRequestParser(protocol)
    with contextlib.suppress(AttributeError):  # httptools before 0.6.3
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser

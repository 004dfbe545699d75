"""Relaying requests: one process of an instance has another one answer a request.

A worker relays what needs the primary, and each process relays the requests for an upload to its home
(`storage.upload_homes`). A link carries one request at a time: its head and its body in one direction, and the answer
in the other. It is used again for the next request. The ends are ASGI applications: what the client's connection
receives, the other process' application does, and what that sends, goes to the client.

    H  head of a request       MessagePack of `RequestHead`
    B  a piece of its body     bytes
    E  the end of its body
    W  the body is wanted: an application that reads it has begun to
    A  a whole answer          MessagePack of `AnswerHead`, with the body
    S  head of an answer       the same, without one
    D  a piece of its body     bytes
    F  its end

A process that dies breaks its links. A request without a body, of a safe method, is then sent again, to the successor.
Any other one may have been carried out: it is answered 503. An answer that has begun is cut off.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.errors import Ending, ProcessUnreachable
from registry.event_loop.now import now_s
from registry.http.access.admission import RELAYED_ADMISSION, Admission, admission_of
from registry.http.failures import log_aborted
from registry.http.oci.answers import CutOff
from registry.http.wire.client_certificate import CLIENT_CERTIFICATE
from registry.http.wire.request import CUT_OFF
from registry.runtime.frames import Link, LinkOpener
from registry.runtime.links import OPEN_TIMEOUT_S, RELAY
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import KIB

log = EventLog("concord.workers")

MAX_IDLE_LINKS = 64
MAX_WAITING = 1000
"""The most requests that wait for other processes to begin with them: each takes descriptors and buffers meanwhile."""
SMALL_ANSWER_BYTES = 64 * KIB
CUT_OFF_TIMEOUT_S = 0.5
"""Time that requests which are cut off have to answer their clients."""
_HEAD, _BODY, _BODY_END, _WANTED, _ANSWER, _START, _DATA, _END = (bytes([code]) for code in b"HBEWASDF")
RELAYED = "concord.relayed"
"""In the scope of a request that another process has relayed."""
_SAFE_METHODS = ("GET", "HEAD")

Header = tuple[bytes, bytes]


class RequestHead(msgspec.Struct, array_like=True):
    """The head of a request, as an ASGI scope states it."""

    method: str
    scheme: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[Header]
    client: tuple[str, int] | None
    has_body: bool
    admission: Admission | None
    """The admission of the request, which its process has decided."""
    client_certificate: str | None = None


class AnswerHead(msgspec.Struct, array_like=True):
    """The head of an answer, and its body where that is small."""

    status: int
    headers: list[Header]
    body: bytes = b""


_request_decoder, _answer_decoder = msgspec.msgpack.Decoder(RequestHead), msgspec.msgpack.Decoder(AnswerHead)
_encode = msgspec.msgpack.Encoder().encode


class Relay:
    """The links of this process to the others, and the requests that it relays (`http.wire.process_relay`)."""

    def __init__(self, opener: LinkOpener) -> None:
        self._opener = opener
        self._idle: dict[int, deque[Link]] = {}
        self._waiting = 0

    async def relay(self, slot: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the process in a slot answer a request. Before the answer has begun it raises ProcessUnreachable, and
        Ending at the end of a drain; after that CutOff."""
        assert RELAYED not in scope, "a request is relayed once, so that none goes round in circles"
        if self._waiting >= MAX_WAITING:
            raise ProcessUnreachable
        request = _Relayed(scope, receive, send, self._on_begun)
        self._waiting += 1
        try:
            await self._over_links(slot, request)
        finally:
            request.end_waiting()

    def _on_begun(self) -> None:
        self._waiting -= 1

    async def _over_links(self, slot: int, request: "_Relayed") -> None:
        """Send a request over one link, or over another one to the successor of the process that has died."""
        until = now_s() + OPEN_TIMEOUT_S
        while True:
            try:
                link = await self._link(slot)
                await request.over(link)
                break
            except asyncio.CancelledError as cut:
                if cut.args != (CUT_OFF,):
                    raise
                if request.has_started:
                    raise CutOff("this instance has ended") from None
                raise Ending from None
            except ConnectionError as error:
                if request.is_gone:
                    return
                if request.has_started:
                    raise CutOff("the process that answered has ended") from None
                if not request.is_repeatable or now_s() > until:
                    raise ProcessUnreachable from error
        if request.leaves_link_clean:
            idle = self._idle.setdefault(slot, deque())
            idle.append(link)
            if len(idle) > MAX_IDLE_LINKS:
                idle.popleft().close()
        else:
            link.abort()

    async def _link(self, slot: int) -> Link:
        idle = self._idle.get(slot)
        while idle:
            link = idle.pop()
            if not link.is_broken:
                return link
            link.abort()
        return await self._opener.connect(slot, RELAY)

    def close(self) -> None:
        """End the links that are idle."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


class _Relayed:
    """One request on its way."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, on_begun: Callable[[], None]) -> None:
        """`on_begun` is called once, when the other process begins with the request, or at the end."""
        self._scope, self._receive, self._send = scope, receive, send
        self._on_begun: Callable[[], None] | None = on_begun
        names = {name for name, _ in scope["headers"]}
        self._has_body = b"content-length" in names or b"transfer-encoding" in names
        self._waits_to_be_wanted = b"expect" in names
        self._wanted = asyncio.Event()
        self.has_started = False
        self.is_gone = False
        """True if the client has gone."""
        self._is_sent = not self._has_body
        self._is_begun = False

    @property
    def is_repeatable(self) -> bool:
        return self._scope["method"] in _SAFE_METHODS and not self._is_begun

    @property
    def leaves_link_clean(self) -> bool:
        """Return whether the link can carry another request: nothing more of this one is to come on it."""
        return self._is_sent and not self.is_gone

    def end_waiting(self) -> None:
        """Note that the other process has begun with the request, or never will."""
        if self._on_begun is not None:
            on_begun, self._on_begun = self._on_begun, None
            on_begun()

    async def over(self, link: Link) -> None:
        """Send the request over a link, and its answer to the client. Raises ConnectionError."""
        link.write(_HEAD, _encode(self._head()))
        sending = asyncio.create_task(self._send_body(link))
        try:
            await self._pass_answer(link)
        except BaseException:
            link.abort()
            raise
        finally:
            sending.cancel()

    def _head(self) -> RequestHead:
        scope = self._scope
        client = scope.get("client")
        return RequestHead(
            scope["method"],
            scope["scheme"],
            scope["path"],
            scope["raw_path"],
            scope["query_string"],
            list(scope["headers"]),
            tuple(client) if client else None,
            self._has_body,
            admission_of(scope),
            scope.get(CLIENT_CERTIFICATE),
        )

    async def _send_body(self, link: Link) -> None:
        """Send the body as it comes, and end the link when the client goes."""
        if self._has_body and self._waits_to_be_wanted:
            await self._wanted.wait()
        with suppress(ConnectionError):  # the other direction meets it too
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.is_gone = True
                    link.abort()
                    return
                if self._is_sent:
                    continue
                self._is_begun = True
                if piece := message.get("body", b""):
                    link.write(_BODY, piece)
                    await link.drain()
                if not message.get("more_body", False):
                    self._is_sent = True
                    link.write(_BODY_END)

    async def _pass_answer(self, link: Link) -> None:
        while True:
            kind, payload = await link.read()
            self.end_waiting()
            if kind == _DATA:
                await self._send({"type": "http.response.body", "body": payload, "more_body": True})
            elif kind == _END:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif kind == _WANTED:
                self._wanted.set()
            else:
                answer = _answer_decoder.decode(payload)
                self.has_started = True
                await self._send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
                if kind == _ANSWER:
                    await self._send({"type": "http.response.body", "body": answer.body, "more_body": False})
                    return


class RelayServer:
    """The end of all links on which other processes relay requests: this process' application answers them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._links: dict[asyncio.Task[None], _Answering] = {}

    def serve(self, arriving: Awaitable[Link]) -> None:
        """Answer the requests that come on a link."""
        answering = _Answering(self._app)
        task = asyncio.create_task(answering.run(arriving))
        self._links[task] = answering
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        del self._links[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(LogEvent.REQUEST_FAILED, "a relayed request failed", exc_info=error)

    @property
    def is_busy(self) -> bool:
        """Return whether a request is under way."""
        return any(link.is_busy for link in self._links.values())

    async def finish(self, until_s: float | None, drain_s: float) -> None:
        """Wait until no request is under way, up to a time of the loop; cut off those that have not ended then.
        `drain_s` is the length of the drain, for the log."""
        while busy := [task for task, link in self._links.items() if link.is_busy]:
            rest_s = None if until_s is None else until_s - now_s()
            if rest_s is not None and rest_s <= 0:
                log_aborted(len(busy), drain_s)
                for task in busy:
                    task.cancel(CUT_OFF)
                await asyncio.wait(busy, timeout=CUT_OFF_TIMEOUT_S)
                break
            await asyncio.wait(busy, timeout=min(rest_s or 0.1, 0.1))

    def close(self) -> None:
        """End all links."""
        for task in self._links:
            task.cancel()


class _Answering:
    """The end of one link at which requests are answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.is_busy = False
        """True while a request is under way."""

    async def run(self, arriving: Awaitable[Link]) -> None:
        link = await arriving
        try:
            with suppress(ConnectionError):
                while True:
                    kind, payload = await link.read()
                    if kind == _HEAD:  # else it is of a body that was not wanted
                        self.is_busy = True
                        await self._answer(link, _request_decoder.decode(payload))
                        await link.drain()
                        self.is_busy = False
                        await asyncio.sleep(0)  # what the application has cancelled may still be reading
        except CutOff:
            link.abort()  # the other end notices that the answer is not whole
        finally:
            self.is_busy = False
            link.close()

    async def _answer(self, link: Link, head: RequestHead) -> None:
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": None,
            "root_path": "",
            "method": head.method,
            "scheme": head.scheme,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query_string,
            "headers": head.headers,
            "client": head.client,
            RELAYED: True,
            RELAYED_ADMISSION: head.admission,
        }
        if head.client_certificate is not None:
            scope[CLIENT_CERTIFICATE] = head.client_certificate
        await self._app(scope, _BodyReader(link, head.has_body).receive, _AnswerWriter(link).send)


class _BodyReader:
    """The `receive` of a relayed request."""

    def __init__(self, link: Link, has_body: bool) -> None:
        self._link = link
        self._has_body = has_body
        self._is_over = False
        self._is_wanted = False

    async def receive(self) -> Message:
        if not self._is_over:
            if not self._has_body:
                self._is_over = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if not self._is_wanted:
                self._is_wanted = True
                self._link.write(_WANTED)
        try:
            while True:
                kind, payload = await self._link.read()
                if kind == _BODY and not self._is_over:
                    return {"type": "http.request", "body": payload, "more_body": True}
                if kind == _BODY_END and not self._is_over:
                    self._is_over = True
                    return {"type": "http.request", "body": b"", "more_body": False}
        except ConnectionError:
            return {"type": "http.disconnect"}


class _AnswerWriter:
    """The `send` of a relayed request."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, has_more = message.get("body", b""), message.get("more_body", False)
        start, self._start = self._start, None
        if start is not None and not has_more and len(body) <= SMALL_ANSWER_BYTES:
            self._link.write(_ANSWER, _encode(AnswerHead(start["status"], list(start["headers"]), bytes(body))))
            return
        if start is not None:
            self._link.write(_START, _encode(AnswerHead(start["status"], list(start["headers"]))))
        for at in range(0, len(body), SMALL_ANSWER_BYTES * 4):
            self._link.write(_DATA, body[at : at + SMALL_ANSWER_BYTES * 4])
            with suppress(ConnectionError):  # the client has gone, which `receive` tells
                await self._link.drain()
        if not has_more:
            self._link.write(_END)

"""The network of a simulated cluster: HTTP between instances and from clients.

HTTP has the manners of the real server: sends after a disconnect are silent, at most 64 KiB wait unsent, an exception
in the middle of a body breaks the connection. A connection to a place that swallows packets is given up after two
seconds, as the real transport does.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

from registry.http.oci.answers import CutOff
from registry.ports import Body, PeerUnreachable
from simulations.packet_simulator import PacketSimulator
from simulations.process import Process, in_process, outside_processes

CONNECT_S = 2.0
WINDOW_BYTES = 64 * 1024
LOOK_AGAIN_S = 0.05
STALLED_S = 60.0
PEERS = "_concord/peer/"
CONTENT = f"{PEERS}content/"
REMAINS = f"{PEERS}remains/"

Application = Callable[[Any, Any, Any], Awaitable[None]]
Accepting = Callable[[], Process | None]
"""Draws the process that takes a connection; None if none listens."""


class Exchange:
    """One request and its answer, between two places."""

    def __init__(self, network: "Network", source: str, target: str) -> None:
        self._network = network
        self.source, self.target = source, target
        self._to_server: asyncio.Queue[tuple[bytes, bool] | None] = asyncio.Queue()
        self._to_client: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._unread_bytes = 0
        self.client_gone = False
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._said = 0
        self._finished = False
        self.content = ""
        """The digest, where it is about content between instances."""
        self.has_mac = False
        """True if the answer must have a MAC."""
        self.changed = False
        """True once a bit of the answer has been changed on its way."""

    # The server's side

    async def receive(self) -> dict[str, Any]:
        if self._finished:
            await asyncio.Event().wait()
        item = None if self.client_gone else await self._to_server.get()
        if item is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": item[0], "more_body": item[1]}

    async def send(self, message: dict[str, Any]) -> None:
        while self._unread_bytes > WINDOW_BYTES and not self.client_gone:
            self._room.clear()
            await self._room.wait()
        if not self.client_gone:
            self._unread_bytes += len(message.get("body", b""))
            self._to_client.put_nowait(message)
            self._finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            self._network.bytes += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                self._said = message["status"]
            if self._finished:
                self._network.on_answer(self.source, self.target, self._said)

    def broken(self) -> None:
        """The server's side is gone in the middle."""
        if not self._finished:
            self._to_client.put_nowait(None)

    # The client's side

    def push(self, data: bytes, more: bool) -> None:
        self._network.bytes += len(data)
        self._to_server.put_nowait((data, more))

    def leave(self) -> None:
        """The client is gone."""
        if not self.client_gone:
            self.client_gone = True
            self._to_server.put_nowait(None)
            self._room.set()

    async def _next(self) -> dict[str, Any]:
        message = await self._to_client.get()
        if message is None:
            raise PeerUnreachable("the connection broke")
        await self._network.travel(self.target, self.source, STALLED_S)
        self._unread_bytes -= len(message.get("body", b""))
        self._room.set()
        return message

    async def head(self) -> None:
        message = await self._next()
        self.status = message["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}

    async def chunks(self) -> AsyncIterator[bytes]:
        received = 0
        while True:
            message = await self._next()
            if message.get("body"):
                data = bytes(message["body"])
                received += len(data)
                if self.content and self._network.packet_simulator.strikes(
                    "flipped bit on the way", self._network.packet_simulator.flips
                ):
                    data = self._network.packet_simulator.flipped(data)
                    self._network.on_flip(self.content)
                if self.has_mac and self._network.packet_simulator.strikes(
                    "changed answer", self._network.packet_simulator.changes
                ):
                    data, self.changed = self._network.packet_simulator.flipped(data), True
                yield data
            if not message.get("more_body", False):
                break
            between = (
                self.source in self._network.packet_simulator.site_of
            )  # a client's own connection is another matter
            if between and self._network.packet_simulator.strikes(
                "reset in a body", self._network.packet_simulator.body_resets
            ):
                self.leave()
                raise PeerUnreachable("reset in the middle of a body")
        declared = self.headers.get("content-length")
        if declared is not None and self.status not in (204, 304) and received != int(declared):
            raise PeerUnreachable("a body of another length than was said")


class Network:
    """The processes that serve each place, and requests between places."""

    def __init__(self, packet_simulator: PacketSimulator) -> None:
        self.packet_simulator = packet_simulator
        self._served: dict[str, tuple[Process, Application, Accepting]] = {}
        self._exchanges: dict[Process, list[Exchange]] = {}
        self.sniffed: dict[str, str] = {}
        """For each place, the token of a session with it, as anybody on the way can see it."""
        self.recorded: deque[tuple[str, Sequence[tuple[str, str]], bytes]] = deque(maxlen=50)
        """Requests between instances, as anybody on the way can record them."""
        self.requests = 0
        self.resumed_transfers = 0
        """Requests between instances for content from its middle on."""
        self.bytes = 0
        self.on_request: list[Callable[[str, str, str], None]] = []
        """Called with source, target and path of every request."""
        self.on_answer: Callable[[str, str, int], None] = lambda source, target, status: None
        """Called with source, target and status when the last byte of an answer leaves."""
        self.on_changed: Callable[[str], None] = lambda what: None
        """Called when an answer that was changed on its way was not refused."""
        self.on_flip: Callable[[str], Any] = lambda digest: None
        """Called with the digest of content that arrives with other bits."""

    def serve(self, place: str, process: Process, application: Application, accepting: Accepting | None = None) -> None:
        """Serve a place for a process, each connection in the process that `accepting` names."""
        self._served[place] = (process, application, accepting or (lambda: process))
        process.on_death.append(lambda: self._gone(place, process))

    def _gone(self, place: str, process: Process) -> None:
        if self._served.get(place, (None,))[0] is process:
            del self._served[place]

    def _break(self, process: Process) -> None:
        for exchange in self._exchanges.pop(process, []):
            exchange.broken()

    async def travel(self, source: str, target: str, patience_s: float) -> None:
        """One way from a place to another. Raises PeerUnreachable when nothing gets through for so long."""
        waited = 0.0
        while self.packet_simulator.is_blocked(source, target):
            if waited >= patience_s:
                raise PeerUnreachable(f"nothing gets from {source} to {target}")
            await asyncio.sleep(LOOK_AGAIN_S)
            waited += LOOK_AGAIN_S
        await asyncio.sleep(self.packet_simulator.latency_s(source, target))

    @asynccontextmanager
    async def request(
        self,
        source: str,
        caller: Process | None,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Body,
    ) -> AsyncIterator[Exchange]:
        """A request from a place. `caller` is the process that sends it, None for a client."""
        place, _, path = url.removeprefix("http://").partition("/")
        await self.travel(source, place, CONNECT_S)
        await self.travel(place, source, CONNECT_S)
        served = self._served.get(place)
        if served is None:
            raise PeerUnreachable(f"no process listens at {place}")
        if self.packet_simulator.strikes("refused connection", self.packet_simulator.resets):
            raise PeerUnreachable("reset before an answer")
        self.requests += 1
        is_whole = dict(headers).get("Range", "bytes=0-").startswith("bytes=0-")
        self.resumed_transfers += caller is not None and not is_whole
        self.sniffed[place] = dict(headers).get("Concord-Session", self.sniffed.get(place, ""))
        for call in self.on_request:
            call(source, place, "/" + path)
        _, application, accepting = served
        process = accepting()
        if process is None:
            raise PeerUnreachable(f"no process listens at {place}")
        exchange = Exchange(self, source, place)
        exchange.has_mac = path.startswith(PEERS) and not path.startswith((CONTENT, REMAINS))
        self._record(source, method, url, headers, body)
        exchange.content = path.removeprefix(CONTENT) if path.startswith(CONTENT) else ""
        if process not in self._exchanges:
            process.on_death.append(partial(self._break, process))
        self._exchanges.setdefault(process, []).append(exchange)
        if caller is not None:
            caller.on_death.append(exchange.leave)
        scope = _scope(method, "/" + path, headers, body, is_client=caller is None)
        outside_processes(lambda: _spawn(in_process(process), _serve(application, scope, exchange)))
        sending = asyncio.create_task(self._send(exchange, body))
        try:
            await self._head(exchange, sending)
            yield exchange
        finally:
            sending.cancel()
            exchange.leave()
            if caller is not None and exchange.leave in caller.on_death:
                caller.on_death.remove(exchange.leave)
            if exchange in self._exchanges.get(process, []):
                self._exchanges[process].remove(exchange)

    def _record(self, source: str, method: str, url: str, headers: Sequence[tuple[str, str]], body: Body) -> None:
        """Keep a question between instances. Opening a session again is of no use to who has not the key."""
        asks = PEERS in url and not url.endswith("/session")
        if asks and method == "POST" and isinstance(body, bytes) and source != "outside":
            self.recorded.append((url, headers, body))

    async def _head(self, exchange: Exchange, sending: "asyncio.Task[None]") -> None:
        """Wait for the head of the answer, or for the failure of our own body."""
        heading = asyncio.ensure_future(exchange.head())
        await asyncio.wait({heading, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.cancelled() and sending.exception() is not None:
            heading.cancel()
            sending.result()
        await heading
        if self.packet_simulator.strikes("lost answer", self.packet_simulator.lost_answers):
            raise PeerUnreachable("reset before the answer came")

    async def _send(self, exchange: Exchange, body: Body) -> None:
        if isinstance(body, bytes):
            exchange.push(body, False)
            return
        try:
            async for chunk in body:
                await self.travel(exchange.source, exchange.target, STALLED_S)
                exchange.push(chunk, True)
        except BaseException:
            exchange.leave()
            raise
        exchange.push(b"", False)


def _scope(
    method: str, target: str, headers: Sequence[tuple[str, str]], body: Body, is_client: bool
) -> Mapping[str, Any]:
    """`is_client` of a client's request, which comes from the instance's own host, so that it may be an operator's."""
    path, _, query = target.partition("?")
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    if is_client:
        raw.append((b"host", b"localhost"))
    if isinstance(body, bytes) and (body or method not in ("GET", "HEAD")):
        raw.append((b"content-length", str(len(body)).encode()))
    if not isinstance(body, bytes):
        raw.append((b"transfer-encoding", b"chunked"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": raw,
        "client": ("127.0.0.1", 0) if is_client else None,
        "server": None,
    }


async def _serve(application: Application, scope: Mapping[str, Any], exchange: Exchange) -> None:
    try:
        await application(scope, exchange.receive, exchange.send)
    except CutOff:
        pass
    finally:
        exchange.broken()


def _spawn(context: Any, work: Any) -> None:
    asyncio.get_running_loop().create_task(work, context=context)


class SimulatedTransport:
    """See `registry.ports.PeerTransport`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network, self._process = network, process

    @asynccontextmanager
    async def request(
        self, method: str, url: str, headers: Sequence[tuple[str, str]] = (), body: Body = b""
    ) -> AsyncIterator[Exchange]:
        self._process.check()
        async with self._network.request(self._process.name, self._process, method, url, headers, body) as exchange:
            yield exchange
        if exchange.changed:
            outside_processes(
                lambda: self._network.on_changed(f"{self._process.name} has believed a changed answer to {url}")
            )

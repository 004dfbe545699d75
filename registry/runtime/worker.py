"""A worker: a process that answers reads (`http.oci.read_only`) and hands every other connection over to the
primary, which then owns it."""

import asyncio
import socket
from collections import deque
from functools import partial
from typing import Any, cast

import uvloop

from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog.catalog import PATH
from registry.catalog.database import Reads
from registry.cluster.replication.read_lease import READ_WAIT_S, ReadLease
from registry.config import Config
from registry.http.oci.read_only import API, ReadOnlyApp
from registry.http.wire.protocol import BoundedProtocol, new_parser
from registry.runtime.handover import MAX_NOTES_PER_MESSAGE, Notes, Sender
from registry.runtime.server import NoHandovers, Server
from registry.runtime.signals import END
from registry.settings.trusted_proxies import TrustedProxies

NOTES_INTERVAL_S = 1.0
RETRY_INTERVAL_S = 0.01
PRIMARY_TIMEOUT_S = 10.0
"""Time that a connection waits for a primary that is restarting, before it is answered 503."""
MAX_WAITING = 1000
LEASE_POLL_S = 0.003
_NO_PRIMARY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"


def run_worker(config: Config, public: socket.socket, sending: socket.socket, lease: ReadLease) -> int:
    """Serve until the signal END. Return the exit status."""
    uvloop.run(_serve(config, public, Sender(sending), lease))
    return 0


async def _serve(config: Config, public: socket.socket, sender: Sender, lease: ReadLease) -> None:
    disk = SystemDisk(config.data)
    catalog = Reads(disk, PATH)
    proxies = TrustedProxies(config.proxies)
    reading = ReadOnlyApp(catalog, disk, SystemClock(), lease, config.verify_after_s, config.log_requests, proxies)
    server = Server(reading, NoHandovers(), partial(WorkerProtocol, waiting=HandoverQueue(sender)))

    def end() -> None:
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(END, end)
    telling = asyncio.create_task(_send_notes(reading, sender))
    await server.serve(sockets=[public])
    telling.cancel()
    catalog.close_reading()


async def _send_notes(reading: ReadOnlyApp, sender: Sender) -> None:
    """Report to the primary periodically. A report that could not be sent is sent the next time."""
    notes, reported_under_way = Notes(), 0
    while True:
        await asyncio.sleep(NOTES_INTERVAL_S)
        if notes == Notes():
            traffic = reading.traffic
            used = [reading.used.pop() for _ in range(min(len(reading.used), MAX_NOTES_PER_MESSAGE))]
            more = traffic.under_way - reported_under_way
            notes = Notes(traffic.take(), traffic.cut_off, more, used, reading.corrupt[:MAX_NOTES_PER_MESSAGE])
            traffic.cut_off, reported_under_way = 0, traffic.under_way
            del reading.corrupt[:MAX_NOTES_PER_MESSAGE]
        if notes != Notes() and sender.send_notes(notes):
            notes = Notes()


class HandoverQueue:
    """Connections that wait for the primary, in the order in which they came."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._queue: deque[tuple[WorkerProtocol, float]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, protocol: "WorkerProtocol") -> None:
        """Pass a connection on, now or later. Refuses it where too many wait, or too long."""
        loop = asyncio.get_running_loop()
        if not self._queue and protocol.try_hand_over(self._sender):
            return
        if self._sender.ended or len(self._queue) >= MAX_WAITING:
            protocol.refuse_without_primary()
            return
        self._queue.append((protocol, loop.time() + PRIMARY_TIMEOUT_S))
        if self._timer is None:
            self._timer = loop.call_later(RETRY_INTERVAL_S, self._try_again)

    def request_lease(self) -> None:
        """Let the primary know that a read waits for the read lease."""
        self._sender.request_lease()

    def _try_again(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._queue:
            protocol, until = self._queue[0]
            if not protocol.try_hand_over(self._sender):
                if not self._sender.ended and loop.time() <= until:
                    self._timer = loop.call_later(RETRY_INTERVAL_S, self._try_again)
                    return
                protocol.refuse_without_primary()
            self._queue.popleft()


class WorkerProtocol(BoundedProtocol):
    """A connection at a worker until a request needs the primary. Bytes that arrived and were not answered go along
    with it."""

    def __init__(self, *, waiting: HandoverQueue, **settings: Any) -> None:
        super().__init__(**settings)
        self._reading = cast(ReadOnlyApp, self.app)
        self._handover_queue = waiting
        self._request_bytes = bytearray()
        """The bytes of the present request that the parser was given."""
        self._is_handing_over = False
        self._lease_wait_since: float | None = None
        """The time since which the present request, which a worker may answer, waits for the read lease."""

    def _may_begin_next(self) -> bool:
        return not self._is_handing_over and super()._may_begin_next()

    def _parse_piece(self, piece: bytes) -> None:
        self._request_bytes += piece
        super()._parse_piece(piece)
        if not self._in_message and not self._is_handing_over:
            self._request_bytes.clear()
        if self._lease_wait_since is not None:
            self._handover_queue.request_lease()
            self._await_lease()
        elif self._is_handing_over:
            self._leave()

    def _await_lease(self) -> None:
        """Take the request up again from its beginning once reads are allowed."""
        assert self._lease_wait_since is not None, "the request waits"
        if self.transport.is_closing():
            return
        if self._reading.lease.allows_read():
            self._lease_wait_since, self._is_handing_over = None, False
            self._pending[:0] = self._request_bytes
            self._request_bytes.clear()
            self.parser = new_parser(self)
            self._resume()
        elif self.loop.time() - self._lease_wait_since > READ_WAIT_S:
            self.refuse_without_primary()
        else:
            self.loop.call_later(LEASE_POLL_S, self._await_lease)

    def on_message_begin(self) -> None:
        if not self._is_handing_over:
            super().on_message_begin()

    def on_headers_complete(self) -> None:
        if not self._is_handing_over:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_handing_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_handing_over:
            super().on_message_complete()

    def _call_application(self) -> None:
        """Send a blob from this process, or hand the connection over."""
        stream = None
        if self.parser.get_http_version() == "1.1":
            has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
            method = "" if has_body else self.parser.get_method().decode("ascii")
            stream = self._reading.stream(method, self.url, self.headers)
            is_read = method in ("GET", "HEAD") and self.url.startswith(API)
            if is_read and not self._reading.lease.allows_read():
                self._lease_wait_since = self.loop.time()
                stream = None
        if stream is None:
            self._is_handing_over, self._in_message = True, False
            self.flow.pause_reading()
            return
        self.app = partial(self._reading.serve, stream)
        super()._call_application()
        self.app = cast(Any, self._reading)

    def _leave(self) -> None:
        """Hand the connection over once all earlier responses have been sent."""
        if self.transport.is_closing():
            return
        self.flow.pause_reading()
        self._clear_deadline()
        self._unset_keepalive_if_required()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(RETRY_INTERVAL_S, self._leave)
        else:
            self._handover_queue.add(self)

    def try_hand_over(self, sender: Sender) -> bool:
        """Return whether the primary has the connection now, or the connection is closed."""
        if self.transport.is_closing():
            return True
        descriptor = self.transport.get_extra_info("socket").fileno()
        if not sender.hand_over(descriptor, bytes(self._request_bytes + self._pending)):
            return False
        self.transport.abort()  # closes our descriptor, not the connection
        return True

    def refuse_without_primary(self) -> None:
        self.transport.write(_NO_PRIMARY)
        self.transport.close()

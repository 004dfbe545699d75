"""A process that only reads: it answers what it can (`http.reading`), and passes every other connection on to the
owner, which has it from then on."""

import asyncio
import socket
from functools import partial
from typing import Any, cast

import uvloop

from registry.catalog.catalog import PATH
from registry.catalog.database import Reads
from registry.config import Config
from registry.http.protocol import BoundedProtocol
from registry.http.reading import Reading
from registry.system.clock import SystemClock
from registry.system.disk import SystemDisk
from registry.workers.handover import NOTED_AT_ONCE, Notes, Sender
from registry.workers.server import Server
from registry.workers.signals import END

NOTES_EVERY_S = 1.0
TRY_AGAIN_S = 0.01
OWNER_COMES_S = 10.0
_HEAD_END = b"\r\n\r\n"
_NO_OWNER = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"


def run_reader(config: Config, public: socket.socket, sending: socket.socket) -> int:
    """Serve until the signal END. Answers the exit status."""
    uvloop.run(_serve(config, public, Sender(sending)))
    return 0


async def _serve(config: Config, public: socket.socket, sender: Sender) -> None:
    disk = SystemDisk(config.data)
    catalog = Reads(disk, PATH)
    reading = Reading(catalog, disk, SystemClock(), config.check_after_s, config.log_requests)
    server = Server(reading, partial(ReaderProtocol, sender=sender))

    def end() -> None:
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(END, end)
    telling = asyncio.create_task(_tell(reading, sender))
    await server.serve(sockets=[public])
    telling.cancel()
    catalog.close_reading()


async def _tell(reading: Reading, sender: Sender) -> None:
    """Tell the owner now and then what it has to know. What does not arrive is told the next time."""
    notes, told_under_way = Notes(), 0
    while True:
        await asyncio.sleep(NOTES_EVERY_S)
        if notes == Notes():
            traffic = reading.traffic
            used = [reading.used.pop() for _ in range(min(len(reading.used), NOTED_AT_ONCE))]
            more = traffic.under_way - told_under_way
            notes = Notes(traffic.take(), traffic.cut_off, more, used, reading.damaged[:NOTED_AT_ONCE])
            traffic.cut_off, told_under_way = 0, traffic.under_way
            del reading.damaged[:NOTED_AT_ONCE]
        if notes != Notes() and sender.tell(notes):
            notes = Notes()


class ReaderProtocol(BoundedProtocol):
    """A connection at a reader, until it asks for something else. What has come and is not answered is kept: it goes
    along with the connection."""

    def __init__(self, *, sender: Sender, **settings: Any) -> None:
        super().__init__(**settings)
        self._reading = cast(Reading, self.app)
        self._sender = sender
        self._unanswered = bytearray()
        self._is_leaving = False
        self._give_up_at = 0.0

    def data_received(self, data: bytes) -> None:
        self._unanswered += data
        if not self._is_leaving:
            super().data_received(data)
            if self._is_leaving and self._is_idle():
                self._pass_on()

    def on_headers_complete(self) -> None:
        if not self._is_leaving:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_leaving:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_leaving:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_leaving:
            self.loop.call_soon(self._pass_on)

    def _answer_directly(self) -> bool:
        answered = super()._answer_directly()
        if answered:
            self._drop_head()
        return answered

    def _call_application(self) -> None:
        """Send a blob from here, or let the connection go."""
        stream = None
        if self._is_idle() and self.parser.get_http_version() == "1.1":
            has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
            method = "" if has_body else self.parser.get_method().decode("ascii")
            stream = self._reading.stream(method, self.url, self.headers)
        if stream is None:
            self._is_leaving = True
            self.flow.pause_reading()
            return
        self._drop_head()
        self.app = partial(self._reading.serve, stream)
        super()._call_application()
        self.app = cast(Any, self._reading)

    def _drop_head(self) -> None:
        """The request at the beginning is being answered; it has no body."""
        while self._unanswered.startswith(b"\r\n"):  # which may stand before a request
            del self._unanswered[:2]
        end = self._unanswered.find(_HEAD_END)
        if end < 0:  # lines that end in another way: where the next request begins cannot be told
            self._unanswered.clear()
            self.transport.close()
        else:
            del self._unanswered[: end + len(_HEAD_END)]

    def _pass_on(self) -> None:
        """Let the owner have the connection, once all that was answered here has been sent."""
        if self.transport.is_closing():
            return
        self.flow.pause_reading()
        self._clear_deadline()
        self._unset_keepalive_if_required()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(TRY_AGAIN_S, self._pass_on)
            return
        descriptor = self.transport.get_extra_info("socket").fileno()
        if self._sender.pass_on(descriptor, bytes(self._unanswered)):
            self.transport.abort()  # closes our descriptor, not the connection
            return
        now = self.loop.time()
        self._give_up_at = self._give_up_at or now + OWNER_COMES_S
        if self._sender.ended or now > self._give_up_at:
            self.transport.write(_NO_OWNER)
            self.transport.close()
        else:
            self.loop.call_later(TRY_AGAIN_S, self._pass_on)

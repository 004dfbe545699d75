"""The channel from workers to the primary: connections and reports.

A pair of Unix sockets that preserve message boundaries, made before any of the processes: each worker has the sending
end, the primary the receiving end. The pair outlives a primary, so that its successor receives the messages that were
sent meanwhile.

    C, bytes; one descriptor    a connection, and its bytes that were not answered
    C; two descriptors          the same, with more bytes than fit into a message: they are in the second, a memory file
    N, MessagePack              a report
    L                           a read waits for the read lease
"""

import array
import asyncio
import os
import socket
from collections.abc import Callable

import msgspec

from registry.oci.names import Digest
from registry.ports import Clock
from registry.storage.checked import Corruption
from registry.telemetry.counters import Counted
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import UNAUTHENTICATED_PERIOD_S, LogLimit
from registry.units import KIB

log = EventLog("concord.workers")

INLINE_BYTES = 32 * KIB
MESSAGE_BYTES = 128 * KIB
MAX_AT_ONCE = 64
WORKERS_END_S = 0.8
"""Time for which a primary that closes accepts connections from workers: they notice a little later, and linger
then."""
MAX_NOTES_PER_MESSAGE = 200
"""A bound for each kind of entry, so that a report fits into a message, whatever the digests."""
_CONNECTION, _NOTES, _LEASE_WANTED = b"C", b"N", b"L"
_DESCRIPTOR_SIZE = array.array("i").itemsize


class Notes(msgspec.Struct):
    """A worker's periodic report to the primary."""

    traffic: list[Counted] = []
    cut_off: int = 0
    under_way: int = 0
    """The change of the number of requests under way since the last report."""
    used: list[Digest] = []
    corrupt: list[Corruption] = []


def channel() -> tuple[socket.socket, socket.socket]:
    """Return the receiving and the sending end of a new channel."""
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiving.setblocking(False)
    sending.setblocking(False)
    return receiving, sending


class Sender:
    """The sending end of the channel, in workers."""

    def __init__(self, sending: socket.socket) -> None:
        self._socket = sending
        self.ended = False
        """True if the primary takes nothing any more, since all is ending."""

    def hand_over(self, descriptor: int, data: bytes) -> bool:
        """Hand a connection over with its received bytes. Return False if the channel is full."""
        if len(data) <= INLINE_BYTES:
            return self._send(_CONNECTION + data, [descriptor])
        try:
            memory = _memory_file(data)
        except OSError:
            return False
        try:
            return self._send(_CONNECTION, [descriptor, memory])
        finally:
            os.close(memory)

    def send_notes(self, notes: Notes) -> bool:
        """Send a report. Return False if the channel is full."""
        return self._send(_NOTES + msgspec.msgpack.encode(notes), [])

    def request_lease(self) -> None:
        """Tell the primary that a read waits for the read lease. The primary would notice by itself, a moment later."""
        self._send(_LEASE_WANTED, [])

    def _send(self, message: bytes, descriptors: list[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([message], rights)
        except BrokenPipeError:
            self.ended = True
            return False
        except OSError:
            return False  # mostly because too much is waiting for a primary
        return True


class Receiver:
    """The receiving end of the channel, in the primary."""

    accepted_for_s = WORKERS_END_S

    def __init__(
        self,
        receiving: socket.socket,
        on_notes: Callable[[Notes], None],
        on_lease_wanted: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._lost = LogLimit(clock, at_once=1, every_s=UNAUTHENTICATED_PERIOD_S)
        self._socket = receiving
        self._on_lease_wanted = on_lease_wanted
        self._on_notes = on_notes
        self._on_connection: Callable[[socket.socket, bytes], None]

    def start(self, on_connection: Callable[[socket.socket, bytes], None]) -> None:
        """Begin to receive messages. `on_connection` takes each connection with the bytes that came on it."""
        self._on_connection = on_connection
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    def close(self) -> None:
        """Stop receiving, and handle the messages that workers have sent before."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.shutdown(socket.SHUT_RD)
        while self._receive_one():
            pass

    def _receive(self) -> None:
        for _ in range(MAX_AT_ONCE):
            if not self._receive_one():
                return

    def _receive_one(self) -> bool:
        """Receive one message. Return False if there is none."""
        space = socket.CMSG_SPACE(2 * _DESCRIPTOR_SIZE)
        try:
            message, rights, flags, _ = self._socket.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:
            log.error(LogEvent.WORKER_RECEIVE_FAILED, "nothing can be received from workers: %(error)s", error=error)
            return False
        descriptors = array.array("i")
        for _, _, data in rights:
            descriptors.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_SIZE])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            for descriptor in descriptors:
                os.close(descriptor)
            if (left_out := self._lost.admit()) is not None:  # any client that connects often enough causes this
                log.error(
                    LogEvent.CONNECTION_DROPPED,
                    "a connection is lost: this process may not open any more files; raise its limit (ulimit -n)",
                    **left_out,
                )
        elif message[:1] == _NOTES:
            self._on_notes(msgspec.msgpack.decode(message[1:], type=Notes))
        elif message == _LEASE_WANTED:
            self._on_lease_wanted()
        elif descriptors:
            data = message[1:] if len(descriptors) == 1 else _content(descriptors[1])
            self._on_connection(socket.socket(fileno=descriptors[0]), data)
        return bool(message)


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()

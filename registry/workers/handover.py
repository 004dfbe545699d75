"""How connections and notes go from readers to the owner.

A pair of Unix sockets that keep messages apart, made before any of the processes: each reader has the end that sends,
the owner the one that receives. The pair outlives an owner, so whoever takes its place finds what was sent meanwhile.

    C, bytes; one descriptor    a connection, and what has come on it and was not answered
    C; two descriptors          the same, with more bytes than go into a message: they are in the second, a memory file
    N, MessagePack              notes
"""

import array
import asyncio
import logging
import os
import socket
from collections.abc import Callable

import msgspec

from registry.http.reading import Damage
from registry.measures import Counted
from registry.names import Digest

log = logging.getLogger("concord.workers")

INLINE_BYTES = 32 * 1024
MESSAGE_BYTES = 64 * 1024
MAX_AT_ONCE = 64
USED_AT_ONCE = 400
_CONNECTION, _NOTES = b"C", b"N"
_DESCRIPTOR_SIZE = array.array("i").itemsize


class Notes(msgspec.Struct):
    """What a reader tells the owner now and then."""

    traffic: list[Counted] = []
    cut_off: int = 0
    used: list[Digest] = []
    damaged: list[Damage] = []


def channel() -> tuple[socket.socket, socket.socket]:
    """The end that receives, and the one that sends."""
    receiving, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiving.setblocking(False)
    sending.setblocking(False)
    return receiving, sending


class Sender:
    """The readers' end."""

    def __init__(self, sending: socket.socket) -> None:
        self._socket = sending
        self.ended = False
        """Whether the owner takes nothing any more, since all is ending."""

    def pass_on(self, descriptor: int, data: bytes) -> bool:
        """Pass a connection on, with what has come on it. False when that cannot be done now."""
        descriptors = [descriptor]
        if len(data) > INLINE_BYTES:
            descriptors.append(_memory_file(data))
            data = b""
        try:
            return self._send(_CONNECTION + data, descriptors)
        finally:
            for further in descriptors[1:]:
                os.close(further)

    def tell(self, notes: Notes) -> bool:
        """False when that cannot be done now."""
        return self._send(_NOTES + msgspec.msgpack.encode(notes), [])

    def _send(self, message: bytes, descriptors: list[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([message], rights)
        except BrokenPipeError:
            self.ended = True
            return False
        except OSError:
            return False  # too much is waiting for an owner
        return True


class Receiver:
    """The owner's end."""

    def __init__(
        self,
        receiving: socket.socket,
        on_connection: Callable[[socket.socket, bytes], None],
        on_notes: Callable[[Notes], None],
    ) -> None:
        self._socket = receiving
        self._on_connection = on_connection
        self._on_notes = on_notes

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    def close(self) -> None:
        """Take nothing any more, and let the readers know."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.shutdown(socket.SHUT_RD)

    def _receive(self) -> None:
        space = socket.CMSG_SPACE(2 * _DESCRIPTOR_SIZE)
        for _ in range(MAX_AT_ONCE):
            try:
                message, rights, _, _ = self._socket.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError as error:
                log.error("nothing can be received from readers: %s", error)
                return
            descriptors = array.array("i")
            for _, _, data in rights:
                descriptors.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_SIZE])
            if not message:
                return  # all senders are gone
            if message[:1] == _NOTES:
                self._on_notes(msgspec.msgpack.decode(message[1:], type=Notes))
            elif descriptors:
                data = message[1:] if len(descriptors) == 1 else _content(descriptors[1])
                self._on_connection(socket.socket(fileno=descriptors[0]), data)


def _memory_file(data: bytes) -> int:
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()

"""Links: stream sockets between the processes of an instance.

Each process has a *mailbox*: a pair of Unix sockets that preserve message boundaries, made before any of the processes.
To open a link to a process, another one makes a pair of connected stream sockets, and sends one of them to its mailbox.
A link breaks when the process at either end dies. A mailbox outlives its process, so that a link that a dead process
has not taken is its successor's, as a connection that waits to be accepted.

No client's connection is passed on: a link carries requests (`runtime.relay`) or commits (`runtime.commit_link`).
"""

import array
import asyncio
import os
import socket

from registry.event_loop.now import now_s
from registry.ports import Clock
from registry.runtime.frames import BUFFER_BYTES, FrameLink, OnLink
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import UNAUTHENTICATED_PERIOD_S, LogLimit

log = EventLog("concord.workers")

RELAY, COMMITS = b"R", b"C"
"""Kinds of links, the first and only message of which a mailbox learns."""
OPEN_TIMEOUT_S = 10.0
"""Time that a request waits for a process that is restarting, before it is answered 503."""
RETRY_INTERVAL_S = 0.01
MAX_AT_ONCE = 64
_DESCRIPTOR_SIZE = array.array("i").itemsize


class Mailboxes:
    """The mailboxes of all processes of an instance, by slot."""

    def __init__(self, processes: int) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(processes)]
        self.receiving = [receiving for receiving, _ in pairs]
        self._sending = [sending for _, sending in pairs]
        for end in (*self.receiving, *self._sending):
            end.setblocking(False)

    async def connect(self, slot: int, kind: bytes) -> FrameLink:
        """Open a link to a process, for frames. Raises ConnectionError."""
        return await FrameLink.over(await self.open(slot, kind))

    async def open(self, slot: int, kind: bytes) -> socket.socket:
        """Open a link to a process. Raises ConnectionError where its mailbox stays full, or is closed, or this process
        may not open any more files."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise ConnectionError("no link can be opened to a process of this instance") from error
        try:
            for end in (ours, theirs):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
            until = now_s() + OPEN_TIMEOUT_S
            while True:
                try:
                    self._sending[slot].sendmsg([kind], rights)
                    return ours
                except BlockingIOError:
                    if now_s() > until:
                        raise ConnectionError("too much waits for a process of this instance") from None
                except OSError as error:  # as many descriptors are on their way as one user may send
                    raise ConnectionError("no link can be opened to a process of this instance") from error
                await asyncio.sleep(RETRY_INTERVAL_S)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def close(self) -> None:
        """Close all ends in this process."""
        for end in (*self.receiving, *self._sending):
            end.close()


class LinkListener:
    """Takes the links that other processes open to this one."""

    def __init__(self, receiving: socket.socket, clock: Clock) -> None:
        self._lost = LogLimit(clock, at_once=1, every_s=UNAUTHENTICATED_PERIOD_S)
        self._socket = receiving
        self._on_link: OnLink

    def start(self, on_link: OnLink) -> None:
        """Begin to take links."""
        self._on_link = on_link
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    def close(self) -> None:
        """Take no more links. Those that wait are a successor's, or break."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def _receive(self) -> None:
        for _ in range(MAX_AT_ONCE):
            if not self._receive_one():
                return

    def _receive_one(self) -> bool:
        """Take one link. Return False if there is none."""
        space = socket.CMSG_SPACE(_DESCRIPTOR_SIZE)
        try:
            kind, rights, flags, _ = self._socket.recvmsg(1, space, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError as error:
            log.error(LogEvent.LINK_RECEIVE_FAILED, "no link can be taken from other processes: %(error)s", error=error)
            return False
        descriptors = array.array("i")
        for _, _, data in rights:
            descriptors.frombytes(data[: len(data) - len(data) % _DESCRIPTOR_SIZE])
        if flags & socket.MSG_CTRUNC:
            for descriptor in descriptors:
                os.close(descriptor)
            if (left_out := self._lost.admit()) is not None:  # any client that connects often enough causes this
                log.error(
                    LogEvent.LINK_DROPPED,
                    "a request is lost: this process may not open any more files; raise its limit (ulimit -n)",
                    **left_out,
                )
        elif descriptors:
            self._on_link(kind, FrameLink.over(socket.socket(fileno=descriptors[0])))
        return bool(kind)

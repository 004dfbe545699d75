"""Links between the processes of one instance (`registry.runtime.frames`), in memory.

They have the manners of the real ones. Frames arrive in order, after a while. What a process has written before it dies
still arrives; what it has not read is lost. A link that a dead process has not taken is its successor's.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar

import msgspec

from registry.runtime.frames import OnLink
from registry.runtime.links import COMMITS
from simulations.process import PROCESS, Process, in_process

WINDOW_BYTES = 64 * 1024
LATENCY_S = 0.0005
HEAD_OF_REQUEST, BATCH_OF_COMMITS = b"H", b"M"
RELAYED: ContextVar[list[bool] | None] = ContextVar("relayed", default=None)
"""Of a request: gets an element when it is relayed."""

Frame = tuple[bytes, bytes]


class LinkEnd:
    """One end of a link, see `registry.runtime.frames.Link`."""

    def __init__(self, links: "ProcessLinks", kind: bytes) -> None:
        self._links = links
        self.kind = kind
        self.owner: Process | None = None
        """None while it waits in a mailbox."""
        self.other: LinkEnd
        self._on_the_way: deque[Frame | None] = deque()
        """None is the end."""
        self._incoming: deque[Frame] = deque()
        self._unread_bytes = 0
        self._last_due_s = 0.0
        self._waiting: list[asyncio.Future[None]] = []
        """Readers at this end, and writers at the other one."""
        self._is_closed = False
        self._has_ended = False
        """True once the end of what the other one has written has arrived."""

    async def read(self) -> Frame:
        while not self._incoming:
            if self._has_ended or self._is_closed:
                raise ConnectionResetError("the process at the other end has ended")
            await self._wait()
        frame = self._incoming.popleft()
        self._unread_bytes -= len(frame[1])
        self._wake()
        return frame

    def write(self, kind: bytes, payload: bytes | bytearray | memoryview = b"") -> None:
        if kind == HEAD_OF_REQUEST and (relayed := RELAYED.get()) is not None:
            relayed.append(True)
        if not self._is_closed:
            if self.kind == COMMITS and kind == BATCH_OF_COMMITS:
                self._links.count_commits(self, bytes(payload))
            self.other._unread_bytes += len(payload)
            self._send((kind, bytes(payload)))

    async def drain(self) -> None:
        while self.other._unread_bytes > WINDOW_BYTES and not self.is_broken:
            await self.other._wait()
        if self.is_broken:
            raise ConnectionResetError("the process at the other end has ended")

    @property
    def is_broken(self) -> bool:
        return self._is_closed or (self._has_ended and not self._incoming)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._links.forget(self)
            self._incoming.clear()
            self._send(None)
            self._wake()

    abort = close

    def cut(self) -> None:
        """Break the link: what is on its way is lost."""
        self.other._has_ended = self._has_ended = True
        for end in (self, self.other):
            end._wake()

    def _send(self, frame: Frame | None) -> None:
        loop = self._links.loop
        self._last_due_s = max(self._last_due_s, loop.time() + self._links.latency_s(self))
        self.other._on_the_way.append(frame)
        loop.call_at(self._last_due_s, self.other._arrive, context=Context())

    def _arrive(self) -> None:
        frame = self._on_the_way.popleft()
        if self._has_ended:
            return
        if frame is None:
            self._has_ended = True
            self.other._wake()
        else:
            self._incoming.append(frame)
        self._wake()

    async def _wait(self) -> None:
        waiting: asyncio.Future[None] = self._links.loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class ProcessLinks:
    """The mailboxes of an instance's processes, and all links between them. See `runtime.frames.LinkOpener`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random, processes: int) -> None:
        self.loop = loop
        self._rng = rng
        self._mailboxes: list[deque[LinkEnd]] = [deque() for _ in range(processes)]
        self._listeners: dict[int, tuple[Process, OnLink]] = {}
        self._open: dict[LinkEnd, None] = {}
        self._owners: set[Process] = set()
        self.late_s = 0.0
        """The longest time that a commit or its answer takes."""
        self.on_frame: Callable[[LinkEnd], None] = lambda end: None
        """Called as a commit or the answer to one leaves."""
        self._last_number: dict[Process | None, int] = {}
        self.sent_again = 0
        """Messages that workers have sent a second time, since they had no answer."""

    async def connect(self, slot: int, kind: bytes) -> LinkEnd:
        ours, theirs = LinkEnd(self, kind), LinkEnd(self, kind)
        ours.other, theirs.other = theirs, ours
        self._own(ours)
        self._open[theirs] = None
        self._mailboxes[slot].append(theirs)
        self._notify(slot)
        return ours

    def source(self, slot: int) -> "Mailbox":
        """Return the links that others open to a process."""
        return Mailbox(self, slot)

    def listen(self, slot: int, process: Process, on_link: OnLink) -> None:
        self._listeners[slot] = process, on_link
        self._notify(slot)

    def latency_s(self, end: LinkEnd) -> float:
        """Return the time that a frame takes from an end."""
        if end.kind != COMMITS:
            return LATENCY_S * self._rng.random()
        self.on_frame(end)
        return LATENCY_S * self._rng.random() + self.late_s * (0.5 + self._rng.random() / 2)

    def commit_links(self) -> list[LinkEnd]:
        """Return the ends of all links that carry commits."""
        return [end for end in self._open if end.kind == COMMITS]

    def count_commits(self, end: LinkEnd, batch: bytes) -> None:
        """Count the messages of a frame that were sent before: each has a number, and later ones have a higher one."""
        last = self._last_number.get(end.owner, 0)
        numbers = [message[0] for message in msgspec.msgpack.decode(batch) if message[0]]
        self.sent_again += sum(number <= last for number in numbers)
        self._last_number[end.owner] = max([last, *numbers])

    def forget(self, end: LinkEnd) -> None:
        self._open.pop(end, None)

    def _own(self, end: LinkEnd) -> None:
        process = end.owner = PROCESS.get()
        assert process is not None, "links are opened and taken by processes"
        self._open[end] = None
        if process not in self._owners:
            self._owners.add(process)
            process.on_death.append(lambda: self._died(process))

    def _died(self, process: Process) -> None:
        self._owners.discard(process)
        for end in [end for end in self._open if end.owner is process]:
            end.close()

    def _notify(self, slot: int) -> None:
        process, _ = self._listeners.get(slot, (None, None))
        if process is not None and process.alive and self._mailboxes[slot]:
            self.loop.call_soon(self._take, slot, context=in_process(process))

    def _take(self, slot: int) -> None:
        _, on_link = self._listeners[slot]
        while self._mailboxes[slot]:
            end = self._mailboxes[slot].popleft()
            self._own(end)
            on_link(end.kind, _taken(end))


async def _taken(end: LinkEnd) -> LinkEnd:
    return end


class Mailbox:
    """See `registry.runtime.frames.LinkSource`."""

    def __init__(self, links: ProcessLinks, slot: int) -> None:
        self._links, self._slot = links, slot

    def start(self, on_link: OnLink) -> None:
        process = PROCESS.get()
        assert process is not None, "links are taken by processes"
        self._links.listen(self._slot, process, on_link)

    def close(self) -> None:
        """Nothing ends in order here."""

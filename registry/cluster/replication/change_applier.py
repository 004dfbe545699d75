"""Changes of other instances: applied in the order of causes, acknowledged, and asked for where frames are missing.

A change that is causally complete is applied in a transaction. One that is early is held for a moment in the causal
buffer (Birman, Schiper and Stephenson, "Lightweight causal and atomic group multicast", 1991) and then replaced by a
diff. A change that is refused alters nothing and is counted by its reason.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol

from crdt.errors import CrdtError
from crdt.frame import Frame
from crdt.gate import CausalBuffer
from crdt.vector import Vector, covers
from registry.access import facts as access
from registry.catalog.access import RightsBehind
from registry.catalog.catalog import Catalog
from registry.catalog.documents import MissingDependencies
from registry.catalog.incoming import ForeignWriter, Incoming
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.frame_sender import FrameSender
from registry.errors import StorageFailed
from registry.event_loop.now import now_s
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import to_ms

log = EventLog("concord.gossip")

MAX_APPLYING = 512
HOLD_CHECK_S = 0.02
MAX_AWAITING = 10_000


class DiffSource(Protocol):
    """The part that asks other instances for diffs."""

    def request_diff(self, instance: str, document: str) -> None:
        """Ask for a diff of a document, of which a frame of an instance could not bring a change."""


class _Awaited(NamedTuple):
    """A change that will come by a diff, not by its frame; it is here once the document covers `needs`."""

    frame: Frame
    needs: Vector

    @classmethod
    def by_diff(cls, frame: Frame, incoming: Incoming) -> "_Awaited":
        return cls(frame, {w: first + length for w, (first, length) in incoming.delta.spans.items()})


class ChangeApplier:
    """Applies the changes that frames bring to one instance."""

    def __init__(
        self, catalog: Catalog, members: Members, sender: FrameSender, diffs: DiffSource, outcomes: Counter[str]
    ) -> None:
        """`outcomes` counts frames by what became of them."""
        self._catalog = catalog
        self._members = members
        self._sender = sender
        self._diffs = diffs
        self._outcomes = outcomes
        self._early: CausalBuffer[tuple[Frame, Incoming]] = CausalBuffer()
        self._holding = asyncio.Event()
        self._applying = asyncio.Semaphore(MAX_APPLYING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_acknowledge: dict[str, tuple[Member, list[int]]] = {}
        self._awaiting: dict[str, list[_Awaited]] = {}

    @property
    def held(self) -> int:
        """Return how many changes are held in the causal buffer."""
        return self._early.items

    async def run(self) -> None:
        """Replace changes that are held for too long by diffs, for ever."""
        try:
            while True:
                await self._holding.wait()
                await asyncio.sleep(HOLD_CHECK_S)
                self._replace_by_diffs(self._early.overdue(self._loop_ms()))
                if not self._early.items:
                    self._holding.clear()
        finally:
            for task in list(self._tasks):
                task.cancel()

    async def apply_soon(self, frame: Frame, incoming: Incoming) -> None:
        """Begin to apply a change. Waits while too many are under way."""
        await self._applying.acquire()
        task = self._spawn(self._apply(frame, incoming))
        task.add_done_callback(lambda _: self._applying.release())

    def await_diff(self, frame: Frame, document: str, needs: Vector) -> None:
        """Expect a change by a diff, since its frame only announces it: it is here once the document covers `needs`."""
        self._await_diffs(document, [_Awaited(frame, needs)])

    async def _apply(self, frame: Frame, incoming: Incoming) -> None:
        try:
            applied = await self._catalog.take_in(incoming, frame.sender.hex())
        except MissingDependencies:
            self._hold(frame, incoming)
        except RightsBehind:
            self._hold_for_rights(frame, incoming)
        except ForeignWriter as error:
            self._outcomes["foreign writer"] += 1
            log.error(
                LogEvent.UPDATE_REJECTED,
                "refused a change of %(sender)s: %(error)s",
                sender=frame.sender.hex(),
                error=error,
            )
        except StorageFailed as error:
            self._outcomes["not stored"] += 1
            log.error(LogEvent.UPDATE_WRITE_FAILED, "a change could not be stored: %(error)s", error=error)
            self._await_diffs(incoming.document, [_Awaited.by_diff(frame, incoming)])
        except CrdtError as error:
            self._outcomes["refused"] += 1
            log.error(
                LogEvent.UPDATE_REJECTED,
                "refused a change of %(sender)s: %(error)s",
                sender=frame.sender.hex(),
                error=error,
            )
        else:
            self._outcomes["applied" if applied.fresh else "duplicate"] += 1
            log.debug(
                LogEvent.FRAME_APPLIED,
                "applied a change of %(document)s by %(sender)s",
                document=incoming.document,
                sender=frame.sender.hex(),
            )
            self._applied(frame)
            self.on_advanced(incoming.document, applied.vector)

    def _applied(self, frame: Frame) -> None:
        member = self._members.get(frame.sender.hex())
        if member is not None:
            member.applied.note(frame.incarnation, frame.sequence)
            if member.beat.site == self._members.own_site and frame.incarnation == member.beat.incarnation:
                if not self._to_acknowledge:
                    asyncio.get_running_loop().call_soon(self._send_acknowledgements)
                self._to_acknowledge.setdefault(member.instance, (member, []))[1].append(frame.sequence)

    def _send_acknowledgements(self) -> None:
        """Acknowledge all that was committed together, in one message to each instance."""
        acknowledging, self._to_acknowledge = self._to_acknowledge, {}
        for member, sequences in acknowledging.values():
            self._sender.acknowledge(member, sequences)

    def on_advanced(self, document: str, vector: Vector) -> None:
        """Apply the changes that were held until a document reached `vector`, by a frame or by a diff."""
        for frame, incoming in self._early.release(document, vector):
            self._spawn(self._apply(frame, incoming))
        awaited = self._awaiting.pop(document, [])
        for entry in awaited:
            if covers(vector, entry.needs):
                self._applied(entry.frame)
        still = [entry for entry in awaited if not covers(vector, entry.needs)]
        if still:
            self._awaiting[document] = still

    def _hold(self, frame: Frame, incoming: Incoming) -> None:
        if covers(self._catalog.replica.state(incoming.document).vector, incoming.needs):
            self._spawn(self._apply(frame, incoming))  # what was missing has been committed since
            return
        self._outcomes["buffered"] += 1
        self._buffer(incoming.document, incoming.needs, frame, incoming)

    def _buffer(self, document: str, needs: Vector, frame: Frame, incoming: Incoming) -> None:
        """Hold a change until a document covers `needs`, or it is overdue."""
        self._holding.set()
        size = len(incoming.raw) + sum(map(len, incoming.bodies))
        self._replace_by_diffs(self._early.hold(document, needs, (frame, incoming), size, self._loop_ms()))

    def _hold_for_rights(self, frame: Frame, incoming: Incoming) -> None:
        """Hold a change until the facts of access control that its sender had seen are here. They come by a diff, at
        once."""
        (needs,) = [revision.vector for revision in incoming.revisions if revision.document == access.DOCUMENT]
        self._outcomes["ahead of rights"] += 1
        self._buffer(access.DOCUMENT, needs, frame, incoming)
        self._diffs.request_diff(frame.sender.hex(), access.DOCUMENT)

    def _replace_by_diffs(self, dropped: dict[str, list[tuple[Frame, Incoming]]]) -> None:
        for items in dropped.values():
            self._outcomes["overdue"] += 1
            by_document: dict[str, list[_Awaited]] = {}
            for frame, incoming in items:
                by_document.setdefault(incoming.document, []).append(_Awaited.by_diff(frame, incoming))
            for document, awaited in by_document.items():
                self._await_diffs(document, awaited)

    def _await_diffs(self, document: str, entries: list["_Awaited"]) -> None:
        """Ask for a diff of a document, which brings these changes."""
        if len(self._awaiting) < MAX_AWAITING:
            self._awaiting.setdefault(document, []).extend(entries)
        self._diffs.request_diff(entries[-1].frame.sender.hex(), document)

    @staticmethod
    def _loop_ms() -> int:
        return to_ms(now_s())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

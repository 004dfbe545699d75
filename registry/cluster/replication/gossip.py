"""Gossip: frames out after a commit, frames in through the causal buffer.

Out: every operation that was committed here is sealed and published, in the order of commits. In: a frame is
authenticated, decoded and checked without touching the catalog; then it is applied in a transaction, if nothing before
it is missing. One that is early is held for a moment and then replaced by a diff. What is refused changes nothing and
is counted by its reason.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import msgspec

from crdt.change import MAX_DELTA_BYTES, Change, decode_change, encode_change
from crdt.delta import decode_delta, own_span
from crdt.errors import CrdtError, Malformed, NotUnderstood, Unauthentic
from crdt.frame import ACKNOWLEDGEMENT, CHANGE, HEARTBEAT, MAX_FRAME_BYTES, Frame, seal, unseal
from crdt.gate import CausalBuffer, requirements
from crdt.header import CAPABILITIES, Field
from crdt.vector import Vector, covers
from registry.capabilities import OWN, Abilities
from registry.catalog.catalog import Catalog
from registry.catalog.documents import MissingDependencies
from registry.catalog.incoming import ForeignWriter, Incoming
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.intake import Intake
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import CommitAcknowledgement, Heartbeat
from registry.errors import StorageFailed
from registry.event_loop.now import now_s
from registry.ports import Bus, Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import UNAUTHENTICATED_PERIOD_S, LogLimit
from registry.units import KIB, to_ms

log = EventLog("concord.gossip")

MAX_APPLYING = 512
MAX_NEEDS = 1000  # entries of at most 16 bytes
BODY_ROOM_BYTES = MAX_FRAME_BYTES - MAX_DELTA_BYTES - 32 * KIB
HOLD_CHECK_S = 0.02
MAX_AWAITING = 10_000
OWN_ECHO_S = 10.0
REFUSED = ("malformed", "unauthentic", "critical field")
"""Outcomes of frames that were refused before anything was done with them."""


class _Awaited(NamedTuple):
    """A change that will come by a diff, not by its frame; it is here once the document covers `needs`."""

    frame: Frame
    needs: Vector

    @classmethod
    def by_diff(cls, frame: Frame, incoming: Incoming) -> "_Awaited":
        return cls(frame, {w: first + length for w, (first, length) in incoming.delta.spans.items()})


class Gossip:
    """One process's part in the cluster's gossip."""

    def __init__(
        self,
        catalog: Catalog,
        bus: Bus,
        keys: Sequence[ClusterKey],
        members: Members,
        acknowledgements: Acknowledgements,
        incarnation: Incarnation,
        recent_frames: RecentFrames,
        clock: Clock,
        abilities: Abilities = OWN,
    ) -> None:
        self._catalog = catalog
        self._understood = abilities.critical_fields
        self._capabilities = (Field(CAPABILITIES, abilities.as_bits()),)
        self.fields_of: Callable[[Change], tuple[Field, ...]] = lambda change: ()
        """Returns further header fields for the frame of a change. This version adds none."""
        self._bus = bus
        self._keys = [key.frames for key in keys]
        self._members = members
        self._acknowledgements = acknowledgements
        self._incarnation = incarnation
        self._recent_frames = recent_frames
        self._began = now_s()
        self._gate: CausalBuffer[tuple[Frame, Incoming]] = CausalBuffer()
        self._holding = asyncio.Event()
        self._applying = asyncio.Semaphore(MAX_APPLYING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_acknowledge: dict[str, tuple[Member, list[int]]] = {}
        self._intake = Intake(bus, clock)
        self._frames: Counter[str] = Counter()
        self._refusals = {outcome: LogLimit(clock, 1, UNAUTHENTICATED_PERIOD_S) for outcome in REFUSED}
        self._awaiting: dict[str, list[_Awaited]] = {}
        self.on_incomplete: Callable[[str, str], None] = lambda instance, document: None
        """Called with the sender and the document of a change that its frame could not bring: a diff is due."""
        self.on_clone_detected: Callable[[int], None] = lambda incarnation: None
        """Called with the incarnation of a clone, another process that runs as this instance."""

    # Out

    def publish(self, change: Change) -> None:
        """Tell the others of a change that is committed here. Never waits and never fails."""
        sequence = self._incarnation.next_change()
        payload = encode_change(_fit_to_frame(change))
        self._recent_frames.add(sequence, self._send(CHANGE, sequence, payload, fields=self.fields_of(change)))
        self._acknowledgements.published(change.commit, sequence)

    @property
    def own_instance(self) -> str:
        return self._catalog.instance_id

    def beat(self, heartbeat: Heartbeat) -> int:
        """Publish a heartbeat. Return its number."""
        sequence = self._incarnation.next_heartbeat()
        self._send(HEARTBEAT, sequence, msgspec.msgpack.encode(heartbeat))
        return sequence

    def _send(
        self, kind: int, sequence: int, payload: bytes, site: str | None = None, fields: tuple[Field, ...] = ()
    ) -> bytes:
        sender = bytes.fromhex(self._catalog.instance_id)
        frame = Frame(kind, sender, self._incarnation.number, sequence, payload, self._capabilities + fields)
        sealed = seal(frame, self._keys[0])
        self._bus.publish(sealed, site)
        return sealed

    # In

    async def run(self) -> None:
        """Take in frames for ever."""
        holding = asyncio.create_task(self._watch_held())
        try:
            await self._intake.run(self.receive)
        finally:
            holding.cancel()
            for task in list(self._tasks):
                task.cancel()

    @property
    def frames(self) -> Counter[str]:
        """Frames received, by what became of them."""
        return self._frames + self._bus.refused

    async def receive(self, data: bytes) -> bool:
        """Take in one frame. Whatever it holds, this does not raise. Return whether it brought anything."""
        try:
            frame = unseal(data, self._keys, self._understood)
            sender = frame.sender.hex()
            if sender == self._catalog.instance_id:
                self._receive_own(frame)
            elif frame.kind == CHANGE:
                return await self._receive_change(frame, sender)
            elif frame.kind == HEARTBEAT:
                return self._receive_heartbeat(frame, sender)
            elif frame.kind == ACKNOWLEDGEMENT:
                self._receive_confirmation(frame, sender)
            else:
                self._count("unknown kind")
                return False
        except Unauthentic as error:
            self._refuse("unauthentic", error)
            return False
        except NotUnderstood as error:
            self._refuse("critical field", error)
            return False
        except (Malformed, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse("malformed", error)
            return False
        return True

    def _refuse(self, outcome: str, error: Exception) -> None:
        self._count(outcome)
        fields = self._refusals[outcome].admit()
        if fields is not None:
            log.warning(LogEvent.FRAME_REJECTED, "refused a frame on the bus: %(error)s", error=error, **fields)

    def _receive_heartbeat(self, frame: Frame, sender: str) -> bool:
        beat = msgspec.msgpack.decode(frame.payload, type=Heartbeat)
        if beat.incarnation != frame.incarnation:
            raise Malformed("a heartbeat of another start than its frame")
        fresh = self._members.receive_heartbeat(sender, beat, frame.sequence, on_bus=True) is not None
        self._count("heartbeat" if fresh else "stale")
        return fresh

    async def receive_pushed(self, data: bytes, sender: str) -> Frame | None:
        """Take in a frame that its sender has pushed by a request. Returns it; None for what is no change of that
        sender, or has a critical field that is not understood. Raises Unauthentic and Malformed."""
        try:
            frame = unseal(data, self._keys, self._understood)
        except NotUnderstood as error:
            self._refuse("critical field", error)
            return None
        if frame.kind != CHANGE or frame.sender.hex() != sender:
            return None
        await self._receive_change(frame, sender)
        return frame

    def _receive_own(self, frame: Frame) -> None:
        """Take in an own frame that came back. Under another incarnation it echoes the last one, or is a clone's."""
        echo = frame.incarnation < self._incarnation.number and now_s() < self._began + OWN_ECHO_S
        if frame.incarnation == self._incarnation.number:
            self._count("echo")
            self._acknowledgements.echoed(frame.sequence if frame.kind == CHANGE else None)
        elif echo:
            self._count("echo")
        else:
            if not self._frames["clone"]:
                log.error(
                    LogEvent.CLONE_DETECTED,
                    "another process runs as this instance (%(instance)s): was its directory copied?",
                    instance=self._catalog.instance_id,
                )
            self._count("clone")
            self.on_clone_detected(frame.incarnation)

    def _count(self, outcome: str) -> None:
        self._frames[outcome] += 1

    def _receive_confirmation(self, frame: Frame, sender: str) -> None:
        said = msgspec.msgpack.decode(frame.payload, type=CommitAcknowledgement)
        member = self._members.get(sender)
        if (
            member is not None
            and said.instance == self._catalog.instance_id
            and said.incarnation == self._incarnation.number
        ):
            self._count("acknowledgement")
            self._acknowledgements.confirmed(member, said.sequences, said.applied)

    async def _receive_change(self, frame: Frame, sender: str) -> bool:
        """Return whether it may bring anything: a frame that was recorded and sent again is to cost no transaction."""
        member = self._members.get(sender)
        if member is not None and member.applied.seen(frame.incarnation, frame.sequence):
            self._count("duplicate")
            return False
        if member is not None and frame.incarnation < member.applied.incarnation:
            self._count("stale")
            return False  # what was before its present incarnation comes by a diff, where it is not here
        if member is None and not self._intake.admits_stranger():
            self._count("unknown sender")
            return False
        change = decode_change(frame.payload)
        if not change.delta:
            self._count("announced")
            self._await(change.document, [_Awaited(frame, change.needs)])
            return True
        delta = decode_delta(change.delta)
        if set(delta.spans) != {change.writer} or delta.spans[change.writer][0] != change.clock:
            raise Malformed("a change whose delta is not its writer's")
        incoming = Incoming(change.document, change.delta, delta, requirements(delta, change.needs), change.bodies)
        await self._applying.acquire()
        task = self._spawn(self._apply(frame, incoming))
        task.add_done_callback(lambda _: self._applying.release())
        return True

    async def _apply(self, frame: Frame, incoming: Incoming) -> None:
        try:
            applied = await self._catalog.take_in(incoming, frame.sender.hex())
        except MissingDependencies:
            self._hold(frame, incoming)
        except ForeignWriter as error:
            self._count("foreign writer")
            log.error(
                LogEvent.UPDATE_REJECTED,
                "refused a change of %(sender)s: %(error)s",
                sender=frame.sender.hex(),
                error=error,
            )
        except StorageFailed as error:
            self._count("not stored")
            log.error(LogEvent.UPDATE_WRITE_FAILED, "a change could not be stored: %(error)s", error=error)
            self._await(incoming.document, [_Awaited.by_diff(frame, incoming)])
        except CrdtError as error:
            self._count("refused")
            log.error(
                LogEvent.UPDATE_REJECTED,
                "refused a change of %(sender)s: %(error)s",
                sender=frame.sender.hex(),
                error=error,
            )
        else:
            self._count("applied" if applied.fresh else "duplicate")
            self._applied(frame)
            self.advanced(incoming.document, applied.vector)

    def _applied(self, frame: Frame) -> None:
        member = self._members.get(frame.sender.hex())
        if member is not None:
            member.applied.note(frame.incarnation, frame.sequence)
            if member.beat.site == self._members.own_site and frame.incarnation == member.beat.incarnation:
                if not self._to_acknowledge:
                    asyncio.get_running_loop().call_soon(self._confirm)
                self._to_acknowledge.setdefault(member.instance, (member, []))[1].append(frame.sequence)

    def _confirm(self) -> None:
        """Confirm all that was committed together in one message for each instance."""
        confirming, self._to_acknowledge = self._to_acknowledge, {}
        for member, sequences in confirming.values():
            incarnation = member.beat.incarnation
            said = CommitAcknowledgement(
                member.instance, incarnation, sequences, member.applied.contiguous_seq(incarnation)
            )
            self._send(ACKNOWLEDGEMENT, 0, msgspec.msgpack.encode(said), member.site_name)

    def advanced(self, document: str, vector: Vector) -> None:
        """A document has reached `vector`, by a frame or by a diff: apply what was held for that."""
        for frame, incoming in self._gate.release(document, vector):
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
        self._count("buffered")
        self._holding.set()
        size = len(incoming.raw) + sum(map(len, incoming.bodies))
        dropped = self._gate.hold(incoming.document, incoming.needs, (frame, incoming), size, self._loop_ms())
        self._await_all(dropped)

    async def _watch_held(self) -> None:
        while True:
            await self._holding.wait()
            await asyncio.sleep(HOLD_CHECK_S)
            self._await_all(self._gate.overdue(self._loop_ms()))
            if not self._gate.items:
                self._holding.clear()

    def _await_all(self, dropped: dict[str, list[tuple[Frame, Incoming]]]) -> None:
        for document, items in dropped.items():
            self._count("overdue")
            self._await(document, [_Awaited.by_diff(frame, incoming) for frame, incoming in items])

    def _await(self, document: str, entries: list["_Awaited"]) -> None:
        """These changes will come by a diff."""
        if len(self._awaiting) < MAX_AWAITING:
            self._awaiting.setdefault(document, []).extend(entries)
        self.on_incomplete(entries[-1].frame.sender.hex(), document)

    @staticmethod
    def _loop_ms() -> int:
        return to_ms(now_s())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _fit_to_frame(change: Change) -> Change:
    """Return a change as its frame carries it: too large a delta is only announced, and bodies go while they fit."""
    if not _is_carried(change):
        first, length = own_span(change.delta)
        return change._replace(bodies=(), delta=b"", needs={change.writer: first + length})
    bodies, room = [], BODY_ROOM_BYTES
    for body in change.bodies:
        if len(body) <= room:
            bodies.append(body)
            room -= len(body)
    return change._replace(bodies=tuple(bodies))


def fits_a_frame(change: Change) -> bool:
    """Return whether a frame carries all of a change."""
    return _is_carried(change) and sum(map(len, change.bodies)) <= BODY_ROOM_BYTES


def _is_carried(change: Change) -> bool:
    return len(change.delta) <= MAX_DELTA_BYTES and len(change.needs) <= MAX_NEEDS

"""Gossip: frames in from the bus, to the part that each kind is for.

A frame is authenticated, decoded and checked without touching the catalog. Heartbeats go to the members, commit
acknowledgements to the writes that wait for them, changes to `change_applier`. What is refused changes nothing and is
counted by its reason. `frame_sender` is the other direction.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

import msgspec

from crdt.change import decode_change
from crdt.delta import decode_delta
from crdt.errors import Malformed, NotUnderstood, Unauthentic
from crdt.frame import ACKNOWLEDGEMENT, CHANGE, HEARTBEAT, Frame, unseal
from crdt.gate import requirements
from crdt.header import CAPABILITIES, REVISIONS, decode_bits, find_field
from crdt.revisions import decode_revisions
from registry.capabilities import ACCESS, BITS, Abilities
from registry.catalog.access import CommittedAccess
from registry.catalog.incoming import Incoming
from registry.cluster.membership.incarnation import CloneGuard, Incarnation
from registry.cluster.membership.members import Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.change_applier import ChangeApplier
from registry.cluster.replication.intake import Intake
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import CommitAcknowledgement, Heartbeat
from registry.event_loop.now import now_s
from registry.ports import Bus, Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import UNAUTHENTICATED_PERIOD_S, LogLimit

log = EventLog("concord.gossip")

OWN_ECHO_S = 10.0
REFUSED = ("malformed", "unauthentic", "critical field", "cannot enforce")
"""Outcomes of frames that were refused before anything was done with them."""


class CannotEnforce(Exception):
    """A frame of an instance that does not know of access control, while that is enforced."""

    def __init__(self, sender: str) -> None:
        super().__init__(f"instance {sender} is of a version that cannot enforce access control")


class Gossip:
    """The receiving side of gossip, for one instance."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        keys: Sequence[ClusterKey],
        abilities: Abilities,
        members: Members,
        incarnation: Incarnation,
        clones: CloneGuard,
        acknowledgements: Acknowledgements,
        applier: ChangeApplier,
        outcomes: Counter[str],
        access: CommittedAccess,
    ) -> None:
        """`outcomes` counts frames by what became of them."""
        self._bus = bus
        self._intake = Intake(bus, clock)
        frame_keys = [frames for key in keys for frames in key.frame_keys]
        self._unseal = partial(unseal, keys=frame_keys, understood=abilities.critical_fields)
        self._members = members
        self._incarnation = incarnation
        self._clones = clones
        self._acknowledgements = acknowledgements
        self._applier = applier
        self._outcomes = outcomes
        self._access = access
        self._refusals = {outcome: LogLimit(clock, 1, UNAUTHENTICATED_PERIOD_S) for outcome in REFUSED}
        self._began = now_s()

    async def run(self) -> None:
        """Take in frames for ever."""
        await self._intake.run(self.receive)

    @property
    def frames(self) -> Counter[str]:
        """Frames received, by what became of them."""
        return self._outcomes + self._bus.refused

    async def receive(self, data: bytes) -> bool:
        """Take in one frame. Raises nothing, whatever the frame holds. Return whether it brought anything new."""
        try:
            frame = self._unseal(data)
            sender = frame.sender.hex()
            if sender == self._members.own_instance:
                self._receive_own(frame)
            elif frame.kind != HEARTBEAT and not self._can_enforce(frame):
                self._refuse("cannot enforce", CannotEnforce(sender))
                return False
            elif frame.kind == CHANGE:
                return await self._receive_change(frame, sender)
            elif frame.kind == HEARTBEAT:
                return self._receive_heartbeat(frame, sender)
            elif frame.kind == ACKNOWLEDGEMENT:
                self._receive_acknowledgement(frame, sender)
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

    def _can_enforce(self, frame: Frame) -> bool:
        """Return whether the sender of a frame knows of access control, if that is enforced: another one would take
        changes from everyone. Its heartbeats are taken, so that operators see it."""
        bits = decode_bits(find_field(frame.fields, CAPABILITIES) or b"")
        return BITS[ACCESS] in bits or not self._access.is_enforced

    def _refuse(self, outcome: str, error: Exception) -> None:
        self._count(outcome)
        fields = self._refusals[outcome].admit()
        if fields is not None:
            log.warning(LogEvent.FRAME_REJECTED, "refused a frame on the bus: %(error)s", error=error, **fields)

    def _receive_heartbeat(self, frame: Frame, sender: str) -> bool:
        beat = msgspec.msgpack.decode(frame.payload, type=Heartbeat)
        if beat.incarnation != frame.incarnation:
            raise Malformed("a heartbeat of another incarnation than its frame")
        fresh = self._members.receive_heartbeat(sender, beat, frame.sequence, on_bus=True) is not None
        self._count("heartbeat" if fresh else "stale")
        return fresh

    async def receive_pushed(self, data: bytes, sender: str) -> Frame | None:
        """Take in a frame that its sender has pushed by a request. Returns it; None for what is no change of that
        sender, or has a critical field that is not understood. Raises Unauthentic and Malformed."""
        try:
            frame = self._unseal(data)
        except NotUnderstood as error:
            self._refuse("critical field", error)
            return None
        if frame.kind != CHANGE or frame.sender.hex() != sender or not self._can_enforce(frame):
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
            if not self._outcomes["clone"]:
                log.error(
                    LogEvent.CLONE_DETECTED,
                    "another process runs as this instance (%(instance)s): was its directory copied?",
                    instance=self._members.own_instance,
                )
            self._count("clone")
            self._clones.on_clone_detected(frame.incarnation)

    def _count(self, outcome: str) -> None:
        self._outcomes[outcome] += 1

    def _receive_acknowledgement(self, frame: Frame, sender: str) -> None:
        acknowledgement = msgspec.msgpack.decode(frame.payload, type=CommitAcknowledgement)
        member = self._members.get(sender)
        if (
            member is not None
            and acknowledgement.instance == self._members.own_instance
            and acknowledgement.incarnation == self._incarnation.number
        ):
            self._count("acknowledgement")
            self._acknowledgements.acknowledged(member, acknowledgement.sequences, acknowledgement.applied)

    async def _receive_change(self, frame: Frame, sender: str) -> bool:
        """Return whether it may bring anything: a frame that was recorded and sent again must not cost a
        transaction."""
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
            self._applier.await_diff(frame, change.document, change.needs)
            return True
        delta = decode_delta(change.delta)
        if set(delta.spans) != {change.writer} or delta.spans[change.writer][0] != change.clock:
            raise Malformed("a change whose delta is not its writer's")
        revisions = decode_revisions(find_field(frame.fields, REVISIONS) or b"")
        needs = requirements(delta, change.needs)
        incoming = Incoming(change.document, change.delta, delta, needs, change.bodies, revisions)
        await self._applier.apply_soon(frame, incoming)
        return True

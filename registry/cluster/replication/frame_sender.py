"""Frames out: every change that was committed here is sealed and published, in the order of commits; and heartbeats and
commit acknowledgements with them.

A frame carries the delta and the manifest bodies that fit. A larger delta is only announced: the others fetch it as a
diff. So is every change of access control: frames can be read by everyone who can listen at the Redis, and hashes of
passwords are not for them. Publishing never waits and never fails: a bus that is down never fails a push.
"""

from collections.abc import Sequence

import msgspec

from crdt.change import MAX_DELTA_BYTES, Change, encode_change
from crdt.delta import own_span
from crdt.frame import ACKNOWLEDGEMENT, CHANGE, HEARTBEAT, MAX_FRAME_BYTES, Frame, seal
from crdt.header import CAPABILITIES, REVISIONS, Field
from crdt.revisions import encode_revisions
from registry.access import facts as access
from registry.capabilities import Abilities
from registry.catalog.access import CommittedAccess
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import CommitAcknowledgement, Heartbeat
from registry.ports import Bus
from registry.units import KIB

ANNOUNCED = frozenset({access.DOCUMENT})
"""Documents whose changes travel by HTTP alone."""
MAX_NEEDS = 1000  # entries of at most 16 bytes
BODY_ROOM_BYTES = MAX_FRAME_BYTES - MAX_DELTA_BYTES - 32 * KIB


class FrameSender:
    """The sending side of gossip, for one instance."""

    def __init__(
        self,
        bus: Bus,
        keys: Sequence[ClusterKey],
        members: Members,
        incarnation: Incarnation,
        recent_frames: RecentFrames,
        acknowledgements: Acknowledgements,
        abilities: Abilities,
        access: CommittedAccess,
    ) -> None:
        """The first of `keys` seals."""
        self._bus = bus
        self._key = keys[0]
        self._members = members
        self._incarnation = incarnation
        self._recent_frames = recent_frames
        self._acknowledgements = acknowledgements
        self._capabilities = (Field(CAPABILITIES, abilities.as_bits()),)
        self._fields_of = abilities.fields_of
        self._access = access

    def publish(self, change: Change) -> None:
        """Tell the others of a change that is committed here. Never waits and never fails."""
        sequence = self._incarnation.next_change()
        payload = encode_change(_fit_to_frame(change))
        fields = self._revisions() + self._fields_of(change)
        self._recent_frames.add(sequence, self._send(CHANGE, sequence, payload, fields=fields))
        self._acknowledgements.published(change.commit, sequence)

    def _revisions(self) -> tuple[Field, ...]:
        """Return the field that says how far access control is here: at least as far as the change had seen."""
        reached = self._access.reached
        return (Field(REVISIONS, encode_revisions(reached)),) if reached else ()

    def beat(self, heartbeat: Heartbeat) -> None:
        """Publish a heartbeat."""
        self._send(HEARTBEAT, self._incarnation.next_heartbeat(), msgspec.msgpack.encode(heartbeat))

    def acknowledge(self, member: Member, sequences: list[int]) -> None:
        """Acknowledge to a member that some of its changes are committed here."""
        incarnation, applied = member.applied_of_incarnation
        acknowledgement = CommitAcknowledgement(member.instance, incarnation, sequences, applied)
        self._send(ACKNOWLEDGEMENT, 0, msgspec.msgpack.encode(acknowledgement), member.site_name)

    def _send(
        self, kind: int, sequence: int, payload: bytes, site: str | None = None, fields: tuple[Field, ...] = ()
    ) -> bytes:
        sender = bytes.fromhex(self._members.own_instance)
        frame = Frame(kind, sender, self._incarnation.number, sequence, payload, self._capabilities + fields)
        key = self._key.enforcing_frames if self._access.is_enforced else self._key.frames
        sealed = seal(frame, key)
        self._bus.publish(sealed, site, key.cluster.hex())
        return sealed


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


def is_large(change: Change) -> bool:
    """Return whether a change is too large for a frame, its bodies aside."""
    return len(change.delta) > MAX_DELTA_BYTES or len(change.needs) > MAX_NEEDS


def _is_carried(change: Change) -> bool:
    return not is_large(change) and change.document not in ANNOUNCED

"""The events that `Members` announces, and the parts of the node that listen to them.

Almost every part of the node knows the members, and some of these parts react to what heartbeats say. So the wiring
builds `MembershipEvents` first and connects the listeners to it last.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from registry.cluster.rpc.messages import Heartbeat

if TYPE_CHECKING:
    from registry.cluster.membership.members import Member


class MembershipListener(Protocol):
    """The reactions to heartbeats."""

    def heard(self, member: "Member") -> None:
        """React to a heartbeat that proves or prolongs the life of a member."""

    def unproven(self, member: "Member") -> None:
        """React to a heartbeat that may be a recording: only an answered request makes the member live."""

    def stale_incarnation(self, member: "Member", beat: Heartbeat) -> None:
        """React to a heartbeat of an earlier incarnation than the member had before."""

    def removed_member_returned(self, instance: str, beat: Heartbeat) -> None:
        """React to a heartbeat of a removed instance."""


class HeardListener(Protocol):
    """A part that reacts to heartbeats of live members."""

    def on_heard(self, member: "Member") -> None: ...


class ProofSeeker(Protocol):
    """The part that asks members for a proof of life."""

    def request(self, member: "Member") -> None: ...


class StaleListener(Protocol):
    """The part that notifies instances whose id or incarnation is over."""

    def on_stale_incarnation(self, member: "Member", beat: Heartbeat) -> None: ...

    def on_removed_member_returned(self, instance: str, beat: Heartbeat) -> None: ...


class _Listeners(NamedTuple):
    heard: Sequence[HeardListener]
    proof: ProofSeeker
    stale: StaleListener


class MembershipEvents:
    """Passes the events on to the connected parts (`MembershipListener`). An event before they are connected is an
    error."""

    def __init__(self) -> None:
        self._connected: _Listeners | None = None

    def connect(self, heard: Sequence[HeardListener], proof: ProofSeeker, stale: StaleListener) -> None:
        """Connect all listeners, once. Those of `heard` are called in their order."""
        assert self._connected is None, "listeners are connected once"
        self._connected = _Listeners(heard, proof, stale)

    @property
    def _listeners(self) -> _Listeners:
        assert self._connected is not None, "listeners are connected before the first heartbeat"
        return self._connected

    def heard(self, member: "Member") -> None:
        for listener in self._listeners.heard:
            listener.on_heard(member)

    def unproven(self, member: "Member") -> None:
        self._listeners.proof.request(member)

    def stale_incarnation(self, member: "Member", beat: Heartbeat) -> None:
        self._listeners.stale.on_stale_incarnation(member, beat)

    def removed_member_returned(self, instance: str, beat: Heartbeat) -> None:
        self._listeners.stale.on_removed_member_returned(instance, beat)

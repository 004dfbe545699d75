"""The reactions to a member's heartbeat: what it has applied, a welcome for a new member, and changes that it names and
that are missing here.

The frames of changes that a heartbeat names are on their way, or lost. So after the time that frames take, this
instance catches up with the member by a diff. Changes of its own site that stay missing make it lag its site.
"""

import asyncio

from registry.cluster.membership.heartbeats import Heartbeats
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.miss_state import MissState
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.messages import Heartbeat
from registry.event_loop.now import now_s

FRAME_DELIVERY_S = 0.3
STALE_AFTER_S = 2.0


class HeartbeatReactions:
    """The reactions of one instance to heartbeats."""

    def __init__(
        self,
        members: Members,
        incarnation: Incarnation,
        acknowledgements: Acknowledgements,
        heartbeats: Heartbeats,
        anti_entropy: AntiEntropy,
        site_lease: SiteLease,
        misses: MissState,
    ) -> None:
        self._members = members
        self._incarnation = incarnation
        self._acknowledgements = acknowledgements
        self._heartbeats = heartbeats
        self._anti_entropy = anti_entropy
        self._site_lease = site_lease
        self._misses = misses
        self._ahead_since: dict[str, float] = {}
        """For each member that has published changes which are missing here, the loop time since which that is so."""

    def on_heard(self, member: Member) -> None:
        """React to a heartbeat of a live member."""
        loop, beat = asyncio.get_running_loop(), member.beat
        incarnation, applied = beat.applied.get(self._members.own_instance, (0, 0))
        if beat.site == self._members.own_site and incarnation == self._incarnation.number:
            self._acknowledgements.caught_up(member, applied)
        if member.is_new:
            self._heartbeats.greet()
            loop.call_later(FRAME_DELIVERY_S, self._catch_up_at_once, member)
            self._site_lease.request_renewal()
        self._misses.update()
        if member.ahead:
            self._ahead_since.setdefault(member.instance, loop.time())
            loop.call_later(FRAME_DELIVERY_S, self._catch_up_if_missing, member, beat)
        else:
            self._ahead_since.pop(member.instance, None)

    def lags_site(self) -> bool:
        """Return whether a member of the own site has been ahead for too long."""
        now = now_s()
        for member in self._members.of_own_site():
            since = self._ahead_since.get(member.instance)
            if since is not None and member.ahead and now - since > STALE_AFTER_S:
                return True
        return False

    def _catch_up_at_once(self, member: Member) -> None:
        """Catch up with a member that has begun anew, or is back after a silence, without waiting for a round."""
        if member.reachable and self._anti_entropy.differs(member):
            self._anti_entropy.catch_up_soon(member)

    def _catch_up_if_missing(self, member: Member, beat: Heartbeat) -> None:
        """Catch up with a member whose frames have not brought the changes that its heartbeat named: they were lost."""
        if not member.ahead:
            self._ahead_since.pop(member.instance, None)
        elif member.applied.contiguous_seq(beat.incarnation) < beat.published_seq and member.reachable:
            self._anti_entropy.catch_up_soon(member)

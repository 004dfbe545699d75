"""Log lines about the other members for the operator: one when a member's state changes, none while it lasts.

A member that falls silent, answers no requests, has another policy, or whose clock is more than a second off is logged
as a warning. The end of each such state is logged too, with the time that it lasted. A restart is one line. This module
decides nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable

from registry.cluster.membership.clock_offsets import ClockOffsets
from registry.cluster.membership.members import HEARTBEAT_S, Member, Members
from registry.cluster.rpc.messages import Handshake
from registry.event_loop.now import now_s
from registry.ports import Clock, PeerUnreachable
from registry.settings.policy import Policy
from registry.storage.space import DiskSpace
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.members")

SPACE_INTERVAL_S = 30.0
"""Seconds between two looks at the disk's room for heartbeats."""
ACQUAINTED_S = 30.0
"""Seconds after which an instance has heard of all live members. Then a site without a known member is worth a line."""
RESTART_GRACE_S = 5.0
"""Seconds for which a member without answers is taken for restarting, which is not worth a line."""

Ask = Callable[[Member], Awaitable[Handshake]]


class _Logged:
    """The state of one member as it was logged last."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.silent_since: float | None = None
        self.failing_since: float | None = None
        self.policy_differs = False
        self.clock_differs = False


class MemberWatch:
    """The task that looks at all members every two seconds."""

    def __init__(
        self, members: Members, policy: Policy, keeps: bool, clock: Clock, offsets: ClockOffsets, space: DiskSpace,
        ask: Ask,
    ) -> None:  # fmt: skip
        """`keeps` is true for an instance that holds replicas itself."""
        self._members = members
        self._policy = policy
        self._own_sites = {members.own_site} if keeps else set()
        self._began = now_s()
        self._empty_sites: set[str] = set()
        """Sites that were logged as having no member that holds replicas."""
        self._clock = clock
        self._offsets = offsets
        self._space = space
        self._ask = ask
        self._logged: dict[str, _Logged] = {}

    async def run(self) -> None:
        """Compare all members every two seconds, for ever."""
        space_at = -SPACE_INTERVAL_S
        while True:
            if now_s() >= space_at + SPACE_INTERVAL_S:
                space_at = now_s()
                await self._space.look()
            self.look()
            due = [member for member in self._members.reachable() if self._offsets.is_due(member)]
            await asyncio.gather(*(self._measure(member) for member in due))
            await asyncio.sleep(HEARTBEAT_S)

    def policy_matches(self, member: Member) -> bool | None:
        """Return whether a member has the same policy; None where it has not announced one."""
        return member.beat.policy == self._policy.digest if member.beat.policy else None

    def empty_sites(self) -> list[str]:
        """Return the sites that the policy wants copies at and where no known instance keeps any, such as misspelt
        ones."""
        return sorted(self._policy.sites - self._own_sites - {one.site for one in self._members.replica_candidates()})

    def look(self) -> None:
        """Log what has changed since the last call."""
        members = self._members.all()
        gone = self._logged.keys() - {member.instance for member in members}
        for instance in gone:
            del self._logged[instance]
        self._offsets.forget(gone)
        if now_s() >= self._began + ACQUAINTED_S:
            self._log_sites()
        for member in members:
            if member.heard_at is not None:  # one that is known from the disk alone may have been away for long
                logged = self._logged.get(member.instance)
                if logged is None:
                    logged = self._logged[member.instance] = _Logged(member.beat.incarnation)
                    log.info(
                        LogEvent.MEMBER_SEEN,
                        "%(member)s is heard, at site %(site)s",
                        member=member.shown,
                        site=member.beat.site or "-",
                    )
                self._log_changes(member, logged)

    def _log_sites(self) -> None:
        empty = set(self.empty_sites())
        for site in sorted(empty - self._empty_sites):
            log.warning(
                LogEvent.POLICY_SITE_UNSERVED,
                "the policy wants copies at site %(site)s, where no known instance keeps any",
                site=site,
            )
        for site in sorted(self._empty_sites - empty):
            log.info(
                LogEvent.POLICY_SITE_SERVED,
                "an instance at site %(site)s keeps copies now, as the policy wants",
                site=site,
            )
        self._empty_sites = empty

    def _log_changes(self, member: Member, logged: _Logged) -> None:
        self._log_life(member, logged)
        self._log_answers(member, logged)
        if member.live:
            self._log_policy(member, logged)
            self._log_clock(member, logged)

    def _log_life(self, member: Member, logged: _Logged) -> None:
        heard_at = member.heard_at or 0.0
        if not member.live:
            if logged.silent_since is None:
                logged.silent_since = heard_at
                log.warning(
                    LogEvent.MEMBER_PRESUMED_DEAD,
                    "%(member)s has been silent for %(silent_s).0f s and is presumed dead",
                    member=member.shown,
                    silent_s=now_s() - heard_at,
                )
            return
        if logged.silent_since is not None:
            log.warning(
                LogEvent.MEMBER_RECOVERED,
                "%(member)s is back after %(silent_s).0f s",
                member=member.shown,
                silent_s=heard_at - logged.silent_since,
            )
        elif logged.incarnation != member.beat.incarnation:
            log.info(LogEvent.MEMBER_RESTARTED, "%(member)s was restarted and is back", member=member.shown)
        logged.silent_since, logged.incarnation = None, member.beat.incarnation

    def _log_answers(self, member: Member, logged: _Logged) -> None:
        since = member.failing_since
        if member.live and since is not None and logged.failing_since is None and now_s() - since > RESTART_GRACE_S:
            logged.failing_since = since
            log.warning(
                LogEvent.MEMBER_REQUESTS_FAILED,
                "%(member)s is heard and does not answer requests: %(error)s",
                member=member.shown,
                error=member.last_failure,
            )
        elif since is None and logged.failing_since is not None:
            log.warning(
                LogEvent.MEMBER_REQUESTS_RECOVERED,
                "%(member)s answers again after %(failing_s).0f s",
                member=member.shown,
                failing_s=now_s() - logged.failing_since,
            )
            logged.failing_since = None

    def _log_policy(self, member: Member, logged: _Logged) -> None:
        differs = self.policy_matches(member) is False
        if differs and not logged.policy_differs:
            log.warning(
                LogEvent.POLICY_MISMATCH_DETECTED,
                "%(member)s has another policy than this instance: each decides by its own what it holds, "
                "so content may be at fewer places than either asks for; concord status shows both",
                member=member.shown,
            )
        elif logged.policy_differs and not differs:
            log.warning(LogEvent.POLICY_MISMATCH_RESOLVED, "%(member)s has the same policy again", member=member.shown)
        logged.policy_differs = differs

    def _log_clock(self, member: Member, logged: _Logged) -> None:
        differs, offset_s = self._offsets.is_too_far(member), self._offsets.offset_s(member) or 0.0
        if differs and not logged.clock_differs:
            log.warning(
                LogEvent.CLOCK_SKEW_DETECTED,
                "the clock of %(member)s differs from this instance's by %(offset_s)+.1f s",
                member=member.shown,
                offset_s=offset_s,
            )
        elif logged.clock_differs and not differs:
            log.warning(
                LogEvent.CLOCK_SKEW_RESOLVED,
                "the clock of %(member)s is within a second of this instance's again",
                member=member.shown,
            )
        logged.clock_differs = differs

    async def _measure(self, member: Member) -> None:
        begun_s = self._clock.steady_s()
        try:
            answer = await self._ask(member)
        except PeerUnreachable as error:
            log.debug(
                LogEvent.CLOCK_REQUEST_FAILED,
                "%(member)s could not be asked for its clock: %(error)s",
                member=member.shown,
                error=error,
            )
            return
        self._offsets.on_answer(member, begun_s, answer.heartbeat)

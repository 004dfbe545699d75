"""The read lease of an instance, renewed by the other members of its site.

Every member asks every other member of its site for a lease while clients read, and answers reads only until the first
of these leases ends.

- A member grants leases to the members whose commit acknowledgements it waits for. It stops granting when a holder
  misses one, and answers its client when all leases it granted have lapsed.
- The answer names the changes that the granter has published. The holder takes the lease into use once it has committed
  them, and has caught up with this incarnation of the granter.
- A member that leaves two requests unanswered goes *out*: reads go on without its lease, for as long as it does not
  answer. Before that, the holder catches up with the other members, which may have what it was not told. A member that
  is out is asked all the time, also while no client reads, so that the first read does not wait for its silence.
- The holder first catches up with a member that was out and answers again. Reads go on meanwhile, and the instance is
  not ready.
- An instance that stood still itself has lost all leases, and asks every member of the site that it ever knew.
- With no other member, an instance reads alone. A partition inside a site is not covered.

So, while the members of a site reach each other: a write that was acknowledged by one is seen by every read at another
that begins afterwards, though a primary hangs, is killed or is busy, and without any bus. Granter and holder count the
same second on monotonic clocks: the holder from when it asked, the granter from when it stopped granting, and 5 % more.
"""

import asyncio
import contextlib

from registry.cluster.membership.heartbeats import OwnHeartbeat
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.introductions import Introductions
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.liveness import LivenessProbe
from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.read_lease import LEASE_S, READ_WAIT_S, ReadLease
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.messages import Heartbeat, LeaseRequest, LeaseResponse
from registry.errors import NotCurrent
from registry.ports import Clock, PeerUnreachable

RENEW_BEFORE_S = 0.5
"""Seconds left of a lease in use at which it is renewed: two requests a second to each member."""
REQUEST_TIMEOUT_S = 0.5
MISSED_ANSWERS = 2
"""Number of unanswered requests in a row after which reads go on without a member: a second in all."""
PROBE_INTERVAL_S = 1.0
"""Seconds between two requests to a member whose lease is not in use, also while no client reads: so the instance
becomes ready again by itself."""
RETRY_S = 0.05
FRAMES_TIMEOUT_S = 0.03
"""Seconds to wait for frames that are on their way. After that the holder asks for what it lacks."""
COMMIT_POLL_S = 0.003
WAIT_POLL_S = 0.25
"""Seconds between two signs of a waiting read: a lease that no read has asked for in a second is not renewed."""
RENEWAL_INTERVAL_S = 0.1
IDLE_INTERVAL_S = 0.25
UNREADY_AFTER_WAIT_S = 0.5
"""An instance whose reads have waited longer than this is not ready."""
UNREADY_AFTER_LAG_S = 0.3
"""An instance is not ready when a member has answered it for longer than this without its lease coming into use."""


class _Granter:
    """One other member of the site in its role as the granter of a lease."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.until_s = 0.0
        """Time on the steady clock until which this member lets reads go on."""
        self.in_use = False
        """True while `until_s` is by its lease. Otherwise the member is out, or new."""
        self.was_in_use = False
        self.ask_at_s = 0.0
        """Time on the steady clock before which it is not asked."""
        self.missed = 0
        """Requests in a row that it left unanswered."""
        self.out_of_step_since_s: float | None = None
        """Time on the steady clock since which it answers without its lease coming into use."""
        self.asking: asyncio.Task[None] | None = None

    @property
    def has_request_under_way(self) -> bool:
        return self.asking is not None and not self.asking.done()

    @property
    def is_out(self) -> bool:
        return self.missed >= MISSED_ANSWERS

    @property
    def is_gone(self) -> bool:
        return self.is_out and not self.member.live


class SiteLease:
    """Holds the read lease of this instance, and grants leases to the other members of its site.

    Has more than a dozen attributes: whether a lease is valid depends on members, clock and anti-entropy at one moment.
    """

    def __init__(
        self,
        lease: ReadLease,
        clock: Clock,
        members: Members,
        peers: PeerClient,
        liveness: LivenessProbe,
        anti_entropy: AntiEntropy,
        acknowledgements: Acknowledgements,
        incarnation: Incarnation,
        own_heartbeat: OwnHeartbeat,
        lifecycle: Lifecycle,
        may_have_neighbours: bool,
        introductions: Introductions,
    ) -> None:
        self._introductions = introductions
        self._lease = lease
        self._clock = clock
        self._members = members
        self._peers = peers
        self._liveness = liveness
        self._anti_entropy = anti_entropy
        self._acknowledgements = acknowledgements
        self._incarnation = incarnation
        self._own_heartbeat = own_heartbeat
        self._lifecycle = lifecycle
        self._may_have_neighbours = may_have_neighbours
        self._granters: dict[str, _Granter] = {}
        self._resyncing: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._valid = asyncio.Event()
        self._blocked_since_s: float | None = None
        self._ticked_s = -LEASE_S * 2
        """Time on the steady clock of the last update. A process that has just started counts as having stood still."""
        self.granted = 0
        """Leases granted to other members."""
        self.waited = 0
        """Reads that waited for a lease."""
        self.refused = 0
        """Reads that were refused for want of one."""

    # For reads

    def allows_read(self) -> bool:
        return self._lease.allows_read()

    async def acquire(self, timeout_s: float = READ_WAIT_S) -> bool:
        """Wait until reads are allowed. Returns False where they are not in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._lease.allows_read():  # and notes each time that a read waits
            left_s = deadline - loop.time()
            if left_s <= 0:
                return False
            self._valid.clear()
            self._wake.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, WAIT_POLL_S)):
                    await self._valid.wait()
        return True

    async def await_read(self) -> None:
        """Wait until a read may be answered. Raises NotCurrent."""
        self.waited += 1
        if not await self.acquire():
            self.refused += 1
            raise NotCurrent("this instance cannot tell whether it shows what its site shows")

    def request_renewal(self) -> None:
        """Renew the lease soon, though no read waits here."""
        self._wake.set()

    def note_waiting_worker(self) -> None:
        """Renew the lease soon: a read waits for it at a worker."""
        self.waited += 1
        self._wake.set()

    @property
    def is_in_step(self) -> bool:
        """True unless reads have waited too long, or a member has answered too long while its lease is not in use."""
        now = self._clock.steady_s()
        if self._blocked_since_s is not None and now - self._blocked_since_s > UNREADY_AFTER_WAIT_S:
            return False
        since = (granter.out_of_step_since_s for granter in self._granters.values())
        return not any(at is not None and now - at > UNREADY_AFTER_LAG_S for at in since)

    def waits_for(self) -> list[str]:
        """Return the members whose leases reads wait for; none while no read waits."""
        now = self._clock.steady_s()
        return [name for name, one in self._granters.items() if self._blocked_since_s and one.until_s <= now]

    # Granting

    def grant(self, instance: str, request: LeaseRequest) -> LeaseResponse:
        """Grant or refuse a read lease to a member of the site that asks for one."""
        beat = self._own_heartbeat.make()
        incarnation, applied = request.applied
        member = self._members.get(instance)
        granted = False
        is_near = member is not None and member.beat.site == self._members.own_site  # else it introduces itself first
        if member is not None and is_near and request.incarnation != member.proven_incarnation:
            self._liveness.request(member)  # writes would not wait for it
        elif member is not None and is_near:
            member.touch()
            granted = self._acknowledgements.may_hold_lease(member, applied if incarnation == beat.incarnation else 0)
        self.granted += granted
        site = [self._members.url(member) for member in self._members.of_own_site()]
        return LeaseResponse(self._incarnation.next_heartbeat(), beat, granted, site)

    # Holding

    async def run(self) -> None:
        """Hold the lease, for ever."""
        try:
            while True:
                self._wake.clear()
                self._update()
                is_wanted = self._lease.asked_ago_s < LEASE_S
                try:
                    async with asyncio.timeout(RENEWAL_INTERVAL_S if is_wanted else IDLE_INTERVAL_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            self.close()

    def close(self) -> None:
        asking = [granter.asking for granter in self._granters.values()]
        for task in (*asking, self._resyncing):
            if task is not None:
                task.cancel()

    def _update(self) -> None:
        now = self._clock.steady_s()
        self._note_members(now)
        is_wanted = self._lease.asked_ago_s < LEASE_S
        for granter in self._granters.values():
            is_ending = is_wanted and granter.until_s - now < RENEW_BEFORE_S
            if is_ending or granter.is_out or granter.out_of_step_since_s is not None:
                is_due = now >= granter.ask_at_s
            else:
                is_due = not granter.in_use and now >= granter.ask_at_s + PROBE_INTERVAL_S
            if is_due and not granter.has_request_under_way:
                granter.asking = asyncio.create_task(self._ask(granter))
        self._extend(now)
        if self._lease.is_valid:
            self._valid.set()
            self._blocked_since_s = None
        elif not is_wanted:
            self._blocked_since_s = None
        elif self._blocked_since_s is None:
            self._blocked_since_s = now

    def _extend(self, now: float) -> None:
        if not self._lifecycle.answers_clients.is_set() or (self._resyncing is not None and not self._resyncing.done()):
            return
        if self._granters:
            self._lease.extend(min(granter.until_s for granter in self._granters.values()))
        elif self._may_have_neighbours or self._members.all():
            self._lease.extend(now + LEASE_S)
        else:
            self._lease.extend(float("inf"))

    def _note_members(self, now: float) -> None:
        """Update the granters: the live members of the site, or after this process stood still, all that it ever
        knew."""
        stood_still = now - self._ticked_s > LEASE_S
        self._ticked_s = now
        if stood_still:
            for known in self._granters.values():
                known.missed = 0  # requests that it left unanswered in that time prove nothing
        for member in self._members.all() if stood_still else self._members.of_own_site():
            granter = self._granters.get(member.instance)
            if member.beat.site == self._members.own_site and (granter is None or granter.member is not member):
                self._granters[member.instance] = _Granter(member)
        for instance, granter in list(self._granters.items()):
            is_known = self._members.get(instance) is granter.member
            if not is_known or granter.is_gone or granter.member.beat.site != self._members.own_site:
                del self._granters[instance]
                if granter.asking is not None:
                    granter.asking.cancel()
                if granter.in_use:
                    self._take_out(granter)

    async def _ask(self, granter: _Granter) -> None:
        """Ask for a lease, and take it into use."""
        member = granter.member
        sent_s = self._clock.steady_s()
        if granter.is_out and granter.until_s >= sent_s:
            granter.until_s = sent_s + LEASE_S  # as it will be whatever comes, so that no read waits for a time limit
        known = member.beat.incarnation
        request = LeaseRequest(self._incarnation.number, (known, member.applied.contiguous_seq(known)))
        try:
            answer = await self._peers.ask(member, "/lease", request, LeaseResponse, REQUEST_TIMEOUT_S)
        except PeerUnreachable:
            self._not_answered(granter, sent_s)
            return
        finally:
            pause_s = RETRY_S if not granter.is_out else max(RETRY_S, sent_s + RENEW_BEFORE_S - self._clock.steady_s())
            granter.ask_at_s = self._clock.steady_s() + pause_s
            self._wake.set()
        granter.missed = 0
        await self._introductions.meet(answer.site_members)
        self._members.receive_heartbeat(member.instance, answer.heartbeat, answer.sequence, on_bus=False)
        has_lapsed = granter.until_s < sent_s
        if answer.heartbeat.joining:
            # It acknowledges nothing yet. What its last incarnation did is here, if the lease of that has not lapsed.
            granter.out_of_step_since_s = None
            has_all = member.applied.contiguous_seq(answer.heartbeat.incarnation) >= answer.heartbeat.published_seq
            if answer.granted and has_all and not (granter.was_in_use and has_lapsed):
                granter.until_s = sent_s + LEASE_S
            return
        beat = answer.heartbeat
        if granter.in_use or has_lapsed:
            has_all = await self._has(member, beat, sent_s + LEASE_S)
        else:
            has_all = self._has_all(member, beat)  # reads go on meanwhile
        if answer.granted and has_all:
            granter.in_use, granter.was_in_use, granter.out_of_step_since_s = True, True, None
            granter.until_s = sent_s + LEASE_S
            return
        if not granter.in_use:
            granter.out_of_step_since_s = granter.out_of_step_since_s or sent_s
            if not has_lapsed:
                granter.until_s = sent_s + LEASE_S
        self._anti_entropy.catch_up_soon(member).add_done_callback(lambda _: self._wake.set())

    @staticmethod
    def _knows_incarnation(member: Member, beat: Heartbeat) -> bool:
        return member.sync_point is not None and member.sync_point.incarnation == beat.incarnation

    def _has_all(self, member: Member, beat: Heartbeat) -> bool:
        """Return whether every change that a member had published when it sent `beat` is committed here."""
        return (
            self._knows_incarnation(member, beat)
            and member.applied.contiguous_seq(beat.incarnation) >= beat.published_seq
        )

    async def _has(self, member: Member, beat: Heartbeat, until_s: float) -> bool:
        """Return what `_has_all` does, after a wait for changes that are on their way."""
        deadline_s = self._clock.steady_s() + FRAMES_TIMEOUT_S
        while (now := self._clock.steady_s()) < until_s and member.beat.incarnation == beat.incarnation:
            if self._has_all(member, beat):
                return True
            if self._knows_incarnation(member, beat) and now < deadline_s:
                await asyncio.sleep(COMMIT_POLL_S)
            elif not await self._anti_entropy.catch_up_soon(member):
                return False
        return False

    def _not_answered(self, granter: _Granter, sent_s: float) -> None:
        granter.missed += 1
        granter.out_of_step_since_s = None
        if granter.is_out or (not granter.in_use and granter.until_s >= sent_s):
            if granter.in_use:
                self._take_out(granter)
            granter.until_s = sent_s + LEASE_S

    def _take_out(self, granter: _Granter) -> None:
        """Let reads go on without a member, once this instance has what that member may have sent to the others."""
        granter.in_use = False
        if self._resyncing is not None:
            self._resyncing.cancel()
        self._resyncing = asyncio.create_task(self._resync())
        self._resyncing.add_done_callback(lambda _: self._wake.set())

    async def _resync(self) -> None:
        """Catch up with every member whose lease is in use."""

        async def reach(granter: _Granter) -> None:
            while granter.in_use and not await self._anti_entropy.catch_up_to_now(granter.member):
                await asyncio.sleep(RETRY_S)

        await asyncio.gather(*map(reach, self._granters.values()))

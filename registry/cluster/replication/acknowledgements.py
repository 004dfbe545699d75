"""Commit acknowledgements inside a site: when the answer to a write may be sent.

Instances of one site may stand behind a plain load balancer, and clients read back on another connection what they just
wrote. So the answer to a write waits until every live member of the site has committed the change. Usually that takes
one round trip over the bus. The bus is waited for in the same way: once our own frame has come back from it, the others
have been told, and it does not matter to them if we die the moment after the answer.

A change that the bus has not brought to a member within 25 ms is pushed to it directly (`direct_push`). A member that
misses 50 ms is *lapsing*: it is granted a read lease (`site_lease`) only as long as it is slow and not hung, which
means that it acknowledges each change within 250 ms. Each such lease puts the next step off. Once its last lease has
ended, the member is *excluded*, and the answers that wait for it are sent. So it answers no client from rows that lack
an acknowledged change. An exclusion costs the writes of about a second that second, and later writes nothing. The
member is waited for again once it has everything that had been published when it was excluded.

Bounds: a bus that hangs costs one write 50 ms. A member that hangs costs the writes of one second at most 1.3 s. One
that hangs again within a minute stays excluded for a second, and twice as long each time, 8 s at most.
"""

import asyncio
import math
from collections.abc import Collection

from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.read_lease import LEASE_S, READ_WAIT_S
from registry.event_loop.now import now_s

ACKNOWLEDGEMENT_TIMEOUT_S = 0.05
"""A member on the same network acknowledges within a few milliseconds. One that takes longer has missed a change."""
DIRECT_PUSH_AFTER_S = 0.025
"""Half of `ACKNOWLEDGEMENT_TIMEOUT_S`: a direct push takes a few milliseconds."""
LAPSE_S = LEASE_S * 1.05
"""Leases that were granted before an exclusion have ended after this, also where two clocks drift apart by 5 %."""
SLOW_MEMBER_S = 0.25
"""A member that acknowledges each change within this is slow, and not hung: it is granted leases, and waited for."""
BACKOFF_RESET_S = 60.0
"""Time without an exclusion after which a member is readmitted at once again."""
MAX_BACKOFF_S = READ_WAIT_S - 2.0
"""A member that is excluded again and again is readmitted later each time, since each exclusion costs writes a second.
A read that waits at that member is answered rather than refused when it is readmitted within the time of the wait."""
MAX_BATCH_CHANGES = 64
BUS_BYPASS_S = 2.0
"""Seconds for which changes are pushed at once to a member that the bus missed. Then one change tries the bus again."""
BUS = "the bus"


class _Wait:
    """One change, and the members that have yet to acknowledge it."""

    __slots__ = ("commit", "done", "is_overdue", "missing", "push_at_s")

    def __init__(self, commit: int, missing: set[str], push_at_s: float) -> None:
        self.commit = commit
        self.missing = missing
        self.push_at_s = push_at_s
        self.is_overdue = False
        """True after `ACKNOWLEDGEMENT_TIMEOUT_S`. From then on each missing member has to be lapsing or excluded."""
        self.done = asyncio.Event()


class Acknowledgements:
    """The commit acknowledgements of this instance's changes by its site, and the exclusions of members.

    Has more than a dozen attributes: one state machine, in which an acknowledgement ends waits, puts exclusions off and
    readmits members at once.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._waits: dict[int, _Wait] = {}
        self._sequence_of: dict[int, int] = {}
        self._lapsing: dict[str, asyncio.TimerHandle] = {}
        """Members that did not acknowledge in time, and whose leases have not lapsed yet."""
        self._excluded: set[str] = set()
        """Excluded members, which are not waited for."""
        self._returns: dict[str, tuple[int, float]] = {}
        """For excluded members: the change up to which they need everything to return, and the earliest loop time."""
        self._pauses: dict[str, tuple[float, float]] = {}
        """For each member: loop time of its last exclusion, and the least duration of it in seconds."""
        self._acknowledged_s: dict[str, float] = {}
        """Loop time of each member's last acknowledgement."""
        self._off_bus_until: dict[str, float] = {}
        """Members that the bus did not reach in time: changes are pushed to them at once, until this loop time."""
        self._began = now_s()
        self._bus_is_heard = False
        self._published = 0
        self.push_is_due = asyncio.Event()
        """Set when `unacknowledged` names members to push changes to."""
        self._watching: asyncio.TimerHandle | None = None
        self.missed = 0
        """Number of times that a member, or the bus, did not acknowledge in time."""
        self.excluded = 0
        """Number of exclusions of members."""

    def published(self, commit: int, sequence: int) -> None:
        """Note that a change is on the bus: from now on it can be acknowledged."""
        loop = asyncio.get_running_loop()
        self._published = sequence
        missing = self._possible_readers(loop.time())
        if self._bus_is_heard:
            missing.add(BUS)
        if missing <= self._excluded:
            return
        self._waits[sequence] = _Wait(commit, missing, loop.time() + DIRECT_PUSH_AFTER_S)
        self._sequence_of[commit] = sequence
        loop.call_later(ACKNOWLEDGEMENT_TIMEOUT_S, self._miss, sequence, self._waits[sequence])
        if self._off_bus_until and self._off_the_bus(loop.time()) & missing:
            self.push_is_due.set()
        if self._watching is None:
            self._watching = loop.call_at(self._waits[sequence].push_at_s, self._watch)

    def _possible_readers(self, now: float) -> set[str]:
        """Return the members of the site that may hold a lease: those that are live, and, until leases of before the
        start have lapsed, those that an earlier incarnation knew."""
        if now < self._began + LAPSE_S:
            site = self._members.own_site
            return {member.instance for member in self._members.all() if member.beat.site == site}
        return {member.instance for member in self._members.of_own_site()}

    def _off_the_bus(self, now: float) -> set[str]:
        self._off_bus_until = {name: until for name, until in self._off_bus_until.items() if now < until}
        return set(self._off_bus_until)

    async def wait(self, commit: int) -> None:
        """Return once the change with this commit number may be answered."""
        wait = self._waits.get(self._sequence_of.get(commit, 0))
        if wait is not None:
            await wait.done.wait()

    def begin_incarnation(self) -> None:
        """Count changes anew, under another incarnation. Writes that wait are answered when all leases have lapsed."""
        for wait in self._waits.values():
            asyncio.get_running_loop().call_later(LAPSE_S, wait.done.set)
        self._waits.clear()
        self._sequence_of.clear()
        for lapse in self._lapsing.values():
            lapse.cancel()
        self._lapsing.clear()
        self._excluded.clear()
        self._returns.clear()
        self._published = 0

    # Acknowledgements of members

    def acknowledged(self, member: Member, sequences: Collection[int], applied: int) -> None:
        """Note that a member of the own site has committed some changes, and all changes up to `applied`."""
        if sequences:
            self._acknowledged_s[member.instance] = now_s()
        for sequence in sequences:
            self._acknowledge(member.instance, sequence)
        self.caught_up(member, applied)

    def echoed(self, sequence: int | None) -> None:
        """Note that an own frame has come back from the bus: a change, or a heartbeat (None)."""
        self._bus_is_heard = True
        if sequence is not None:
            self._acknowledge(BUS, sequence)

    def caught_up(self, member: Member, applied: int) -> None:
        """Note that a member of the own site has all changes up to `applied`."""
        for sequence in [sequence for sequence in self._waits if sequence <= applied]:
            self._acknowledge(member.instance, sequence)
        if self._may_return(member.instance, applied):
            self._readmit(member.instance)
        if member.instance in self._lapsing:
            self._reconsider(member.instance)

    def may_hold_lease(self, member: Member, applied: int) -> bool:
        """Return whether to grant a read lease to a member that asks for one, and has all changes up to `applied`. From
        a grant on, every write waits for the member."""
        instance, now = member.instance, now_s()
        self.caught_up(member, applied)
        if instance in self._excluded:
            return False
        if instance in self._lapsing:
            waited_s = now - self._oldest_s(instance, now)
            silent_s = now - self._acknowledged_s.get(instance, -math.inf)
            if waited_s >= SLOW_MEMBER_S or silent_s >= SLOW_MEMBER_S:
                return False
            self._lapse(instance)  # the lease that it gets now has to end, too
        return True

    def unacknowledged(self) -> dict[str, list[int]]:
        """Return the changes to push to members directly, the oldest first, by member."""
        now, due = now_s(), dict[str, list[int]]()
        late = self._off_the_bus(now)
        for sequence, wait in self._waits.items():
            if now >= wait.push_at_s:
                late |= wait.missing
            for instance in sorted((wait.missing & late) - self._excluded - {BUS}):
                changes = due.setdefault(instance, [])
                if len(changes) < MAX_BATCH_CHANGES:
                    changes.append(sequence)
        return due

    def _may_return(self, instance: str, applied: int) -> bool:
        needed, not_before_s = self._returns.get(instance, (0, 0.0))
        is_due = now_s() >= not_before_s
        return instance in self._excluded and applied >= needed and is_due

    def _readmit(self, instance: str) -> None:
        """Wait for an excluded member again, but not with overdue changes: it commits those before it answers reads."""
        self._excluded.discard(instance)
        for wait in self._waits.values():
            if wait.is_overdue:
                wait.missing.discard(instance)
                self._release(wait)

    def _reconsider(self, instance: str) -> None:
        """Decide again on a member whose leases are lapsing, since it has acknowledged something."""
        now = now_s()
        oldest_s = self._oldest_s(instance, now)
        if oldest_s == now:
            self._lapsing.pop(instance).cancel()
        elif now - oldest_s < SLOW_MEMBER_S:
            self._lapse(instance)

    def _oldest_s(self, instance: str, now: float) -> float:
        """Return the loop time at which the oldest overdue change without a member's acknowledgement was published, or
        `now` without such a change."""
        overdue = (w.push_at_s for w in self._waits.values() if w.is_overdue and instance in w.missing)
        return min((at_s - DIRECT_PUSH_AFTER_S for at_s in overdue), default=now)

    def _acknowledge(self, instance: str, sequence: int) -> None:
        wait = self._waits.get(sequence)
        if wait is not None:
            wait.missing.discard(instance)
            self._release(wait)

    def _release(self, wait: _Wait) -> None:
        if wait.missing <= self._excluded:
            wait.done.set()

    # Missing acknowledgements

    def _watch(self) -> None:
        """Have the changes pushed that the bus did not bring in time."""
        self._watching = None
        loop = asyncio.get_running_loop()
        for wait in self._waits.values():
            if wait.done.is_set():
                continue
            if loop.time() >= wait.push_at_s:
                late = wait.missing - self._excluded - {BUS}
                self._off_bus_until |= dict.fromkeys(late, loop.time() + BUS_BYPASS_S)
                if late:
                    self.push_is_due.set()
                continue
            self._watching = loop.call_at(wait.push_at_s, self._watch)
            return

    def _miss(self, sequence: int, wait: _Wait) -> None:
        """Handle a change for which `ACKNOWLEDGEMENT_TIMEOUT_S` is over."""
        if self._waits.get(sequence) is not wait:
            return  # of another incarnation
        late = wait.missing - self._excluded
        if BUS in late:
            self._bus_is_heard = False
            wait.missing.discard(BUS)
            self.missed += 1
        wait.is_overdue = True
        for instance in sorted(late - {BUS} - self._lapsing.keys()):
            self._lapse(instance)
            self.missed += 1
        self._release(wait)
        self._forget(sequence, wait)

    def _forget(self, sequence: int, wait: _Wait) -> None:
        """Drop a change that nothing waits for; look again later at one that is still waited for."""
        if self._waits.get(sequence) is not wait:
            return
        if wait.done.is_set():
            del self._waits[sequence]
            self._sequence_of.pop(wait.commit, None)
        else:
            asyncio.get_running_loop().call_later(ACKNOWLEDGEMENT_TIMEOUT_S, self._forget, sequence, wait)

    def _lapse(self, instance: str) -> None:
        """Schedule the exclusion of a member for when all its leases have ended."""
        if instance in self._lapsing:
            self._lapsing[instance].cancel()
        self._lapsing[instance] = asyncio.get_running_loop().call_later(LAPSE_S, self._exclude, instance)

    def _exclude(self, instance: str) -> None:
        """Exclude a member whose leases have lapsed since it did not acknowledge in time."""
        now = now_s()
        del self._lapsing[instance]
        self._excluded.add(instance)
        self.excluded += 1
        last_s, pause_s = self._pauses.get(instance, (-BACKOFF_RESET_S, 0.0))
        pause_s = min(max(pause_s * 2, 1.0), MAX_BACKOFF_S) if now - last_s < BACKOFF_RESET_S else 0.0
        self._pauses[instance] = now, pause_s
        self._returns[instance] = self._published, now + pause_s
        for wait in self._waits.values():
            self._release(wait)

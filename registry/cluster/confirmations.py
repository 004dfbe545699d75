"""Commit acknowledgements inside a site: when the answer to a write may leave.

Instances of one site may stand behind a plain load balancer, and clients read back on another connection what they just
wrote. So the answer to a write waits until every live member of the site has committed the change. Usually that takes
one round trip over the bus. The bus is waited for in the same way: once our own frame has come back from it, the others
have been told, and it does not matter to them if we die the moment after the answer.

A change that the bus has not brought to a member within 25 ms is pushed to it directly (`site_push`). A member that
misses 50 ms is *excluded*: from that moment it is granted no read lease (`site_lease`), and the answer leaves once
every lease that it may hold has lapsed. So it answers no client from rows that lack an acknowledged change. That costs
one exclusion about a second, however many writes wait, and later writes nothing. The member is waited for again once it
has everything that was published here.

Bounds: a bus that hangs costs one write 50 ms. A member that hangs costs the writes of one second that second.
"""

import asyncio
from collections.abc import Collection

from registry.cluster.members import Member, Members
from registry.read_lease import LEASE_S

PATIENCE_S = 0.05
PUSH_AFTER_S = 0.025
"""Half of the patience: a direct push takes a few milliseconds."""
LAPSE_S = LEASE_S * 1.05
"""Leases that were granted before an exclusion have ended after this, also where two clocks drift apart by 5 %."""
READMITTED_CHANGES = 256
"""A member that lacks no more is readmitted when it asks for a lease: it has them before it answers a read again."""
MAX_BATCH_CHANGES = 64
OFF_BUS_S = 2.0
"""So long changes are pushed at once to a member that the bus did not reach. Then one change tries the bus again."""
BUS = "the bus"


class _Wait:
    """One change, and the members that have yet to acknowledge it."""

    __slots__ = ("commit", "done", "is_overdue", "missing", "push_at_s")

    def __init__(self, commit: int, missing: set[str], push_at_s: float) -> None:
        self.commit = commit
        self.missing = missing
        self.push_at_s = push_at_s
        self.is_overdue = False
        """Whether the patience is over: from then on each member that is missing has to be lapsing or excluded."""
        self.done = asyncio.Event()


class Confirmations:
    """Which changes of this instance the members of its site have committed, and which members are excluded."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._waits: dict[int, _Wait] = {}
        self._sequence_of: dict[int, int] = {}
        self._lapsing: dict[str, asyncio.TimerHandle] = {}
        """Members that missed the patience, whose leases have not lapsed yet."""
        self._behind: set[str] = set()
        """Members that are not waited for: excluded ones, and the bus."""
        self._off_bus_until: dict[str, float] = {}
        """Members that the bus did not reach in time: changes are pushed to them at once, until this loop time."""
        self._began = asyncio.get_running_loop().time()
        self._bus_is_heard = False
        self._published = 0
        self.push_is_due = asyncio.Event()
        """Set when `unacknowledged` names somebody to push changes to."""
        self._watching: asyncio.TimerHandle | None = None
        self.missed = 0
        """How often a member, or the bus, missed the patience."""
        self.excluded = 0
        """How often a member was excluded."""

    def published(self, commit: int, sequence: int) -> None:
        """A change is on the bus: from now on it can be acknowledged."""
        loop = asyncio.get_running_loop()
        self._published = sequence
        missing = self._possible_readers(loop.time())
        if self._bus_is_heard:
            missing.add(BUS)
        if missing <= self._behind:
            return
        self._waits[sequence] = _Wait(commit, missing, loop.time() + PUSH_AFTER_S)
        self._sequence_of[commit] = sequence
        loop.call_later(PATIENCE_S, self._miss, sequence, self._waits[sequence])
        if self._off_bus_until and self._off_the_bus(loop.time()) & missing:
            self.push_is_due.set()
        if self._watching is None:
            self._watching = loop.call_at(self._waits[sequence].push_at_s, self._watch)

    def _possible_readers(self, now: float) -> set[str]:
        """The members of the site that may hold a lease: those that live, and for a moment after our start those that
        an earlier incarnation knew."""
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

    def begin_again(self) -> None:
        """Changes are counted anew, under another incarnation: nobody has missed any of those."""
        for wait in self._waits.values():
            wait.done.set()
        self._waits.clear()
        self._sequence_of.clear()
        for instance in [*self._lapsing, *self._behind]:
            self._readmit(instance)
        self._published = 0

    # What members say

    def confirmed(self, member: Member, sequences: Collection[int], applied: int) -> None:
        """A member of our site has committed changes of ours, and all of them up to `applied`."""
        for sequence in sequences:
            self._confirm(member.instance, sequence)
        if applied >= self._published or applied in sequences:
            # It has everything up to a change that it was just told of: it keeps step again.
            self._readmit(member.instance)

    def echoed(self, sequence: int | None) -> None:
        """A frame of ours has come back from the bus: this change, or a heartbeat."""
        self._bus_is_heard = True
        if sequence is not None:
            self._confirm(BUS, sequence)

    def caught_up(self, member: Member, applied: int) -> None:
        """A member of our site says how far it is, by a heartbeat or when it asks for a lease."""
        if applied >= self._published:
            for sequence in list(self._waits):
                self._confirm(member.instance, sequence)
            self._readmit(member.instance)

    def may_hold_lease(self, member: Member, applied: int) -> bool:
        """Whether a member that asks for a read lease, and has all our changes up to `applied`, may have one. Once it
        may, every write waits for it."""
        self.caught_up(member, applied)
        if member.instance in self._lapsing:
            return False
        if self._published - applied > READMITTED_CHANGES:
            return False
        for wait in self._waits.values():
            if wait.is_overdue:
                wait.missing.discard(member.instance)  # it commits that before it uses the lease
                self._release(wait)
        self._readmit(member.instance)
        return True

    def unacknowledged(self) -> dict[str, list[int]]:
        """The changes that are to be pushed to members directly, the oldest first, by member."""
        now, due = asyncio.get_running_loop().time(), dict[str, list[int]]()
        late = self._off_the_bus(now)
        for sequence, wait in self._waits.items():
            if now >= wait.push_at_s:
                late |= wait.missing
            for instance in sorted((wait.missing & late) - self._behind - {BUS}):
                changes = due.setdefault(instance, [])
                if len(changes) < MAX_BATCH_CHANGES:
                    changes.append(sequence)
        return due

    def _readmit(self, instance: str) -> None:
        self._behind.discard(instance)
        if instance in self._lapsing:
            self._lapsing.pop(instance).cancel()
        if any(wait.is_overdue and instance in wait.missing for wait in self._waits.values()):
            self._lapse(instance)

    def _confirm(self, instance: str, sequence: int) -> None:
        wait = self._waits.get(sequence)
        if wait is not None:
            wait.missing.discard(instance)
            self._release(wait)

    def _release(self, wait: _Wait) -> None:
        if wait.missing <= self._behind:
            wait.done.set()

    # What they miss

    def _watch(self) -> None:
        """Have what the bus did not bring in time pushed."""
        self._watching = None
        loop = asyncio.get_running_loop()
        for wait in self._waits.values():
            if wait.done.is_set():
                continue
            if loop.time() >= wait.push_at_s:
                late = wait.missing - self._behind - {BUS}
                self._off_bus_until |= dict.fromkeys(late, loop.time() + OFF_BUS_S)
                if late:
                    self.push_is_due.set()
                continue
            self._watching = loop.call_at(wait.push_at_s, self._watch)
            return

    def _miss(self, sequence: int, wait: _Wait) -> None:
        """A change has waited for as long as is usual."""
        if self._waits.get(sequence) is not wait:
            return  # of another incarnation
        late = wait.missing - self._behind
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
        """Keep a change as long as it is waited for."""
        if self._waits.get(sequence) is not wait:
            return
        if wait.done.is_set():
            del self._waits[sequence]
            self._sequence_of.pop(wait.commit, None)
        else:
            asyncio.get_running_loop().call_later(PATIENCE_S, self._forget, sequence, wait)

    def _lapse(self, instance: str) -> None:
        """Grant a member no more leases, and exclude it when those it has have ended."""
        self._lapsing[instance] = asyncio.get_running_loop().call_later(LAPSE_S, self._exclude, instance)

    def _exclude(self, instance: str) -> None:
        """The leases of a member that missed the patience have lapsed."""
        del self._lapsing[instance]
        self._behind.add(instance)
        self.excluded += 1
        for wait in self._waits.values():
            self._release(wait)

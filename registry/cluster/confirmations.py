"""Waiting until a write is told, and the own site has seen it.

Instances of one site may stand behind a plain load balancer, and clients read back on another connection what they just
wrote. So the answer to a write waits until every live member of the site has confirmed that it committed the change, at
most 50 ms. The bus is waited for in the same way: once our own frame has come back from it, the others have been told,
and it does not matter to them if we die the moment after the answer. Whoever misses this is not waited for again until
it has caught up: a member or a bus that hangs costs one write its 50 ms, not every write. Once it has, what still waits
waits for it too.
"""

import asyncio

from registry.cluster.members import Member, Members

PATIENCE_S = 0.05
BUS = "the bus"


class _Wait:
    """One change, and the members that have yet to confirm it."""

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.done = asyncio.Event()


class Confirmations:
    """Which changes of ours the members of our site have committed."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._waits: dict[int, _Wait] = {}
        self._sequence_of: dict[int, int] = {}
        self._behind: set[str] = set()
        self._bus_is_heard = False
        self._published = 0
        self.missed = 0
        """How often a member, or the bus, was given up on."""

    def published(self, commit: int, sequence: int) -> None:
        """A change is on the bus: from now on it can be confirmed."""
        self._published = sequence
        missing = {m.instance for m in self._members.of_own_site()}
        if self._bus_is_heard:
            missing.add(BUS)
        if not missing <= self._behind:
            self._waits[sequence] = _Wait(missing)
            self._sequence_of[commit] = sequence
            asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up, commit, sequence, self._waits[sequence])

    async def wait(self, commit: int) -> None:
        """Return once the change with this commit number is confirmed by all that are waited for, or they are late."""
        wait = self._waits.get(self._sequence_of.get(commit, 0))
        if wait is not None:
            await wait.done.wait()

    def begin_again(self) -> None:
        """Changes are counted anew, under another start: nobody has missed any of those."""
        for wait in self._waits.values():
            wait.done.set()
        self._waits.clear()
        self._sequence_of.clear()
        self._behind.clear()
        self._published = 0

    def confirmed(self, member: Member, sequences: list[int], applied: int) -> None:
        """A member of our site has committed changes of ours, and all of them up to `applied`."""
        for sequence in sequences:
            self._confirm(member.instance, sequence)
        if applied >= self._published or applied in sequences:
            # It has everything up to a change that it was just told of: it keeps step again.
            self._behind.discard(member.instance)

    def echoed(self, sequence: int | None) -> None:
        """A frame of ours has come back from the bus: this change, or a heartbeat."""
        self._bus_is_heard = True
        if sequence is not None:
            self._confirm(BUS, sequence)

    def caught_up(self, member: Member, applied: int) -> None:
        """A heartbeat says how far a member of our site is."""
        if applied >= self._published:
            for sequence in self._waits:
                self._confirm(member.instance, sequence)
            self._behind.discard(member.instance)

    def _confirm(self, instance: str, sequence: int) -> None:
        wait = self._waits.get(sequence)
        if wait is not None:
            wait.missing.discard(instance)
            if wait.missing <= self._behind:
                wait.done.set()

    def _give_up(self, commit: int, sequence: int, wait: _Wait) -> None:
        if self._waits.get(sequence) is not wait:
            return  # of another start
        del self._waits[sequence]
        self._sequence_of.pop(commit, None)
        late = wait.missing - self._behind
        if late:
            self._bus_is_heard &= BUS not in late
            self._behind |= late - {BUS}
            self.missed += len(late)
        wait.done.set()

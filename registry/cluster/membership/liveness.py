"""Proof that members are alive now, and the record on disk that outlives a restart.

Heartbeats on the bus are authentic, not fresh: anyone who can publish there can record them and publish them again,
also long after their sender is gone. Such a heartbeat makes no member live (see `cluster.membership.members`). It is a
reason to send the member a request, whose answer is fresh: its MAC covers the request's number in a session with nonces
of both sides.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable

from registry.catalog.members import MemberRow
from registry.cluster.membership.members import Member

PROBES_AT_ONCE = 16
"""Probes of other sites' members that run together. Many instances that start at once would otherwise open sessions
with each other all at the same moment."""
SAVE_SEQUENCE_S = 30.0
"""Seconds between two saves of sequence numbers. One commit in half a minute costs an idle instance nothing. Heartbeats
that were recorded in the last half minute before a crash are not recognized as stale after it; even so, they make no
member live."""


class LivenessProbe:
    """Asks members whose heartbeats begin a life for a proof, each once at a time."""

    def __init__(self, own_site: str, probe: Callable[[Member], Awaitable[None]]) -> None:
        """`probe` sends a member a request; its answer counts where answers are taken in."""
        self._own_site = own_site
        self._probe = probe
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._far = asyncio.Semaphore(PROBES_AT_ONCE)

    def request(self, member: Member) -> None:
        """Probe a member, unless a probe of it is under way. Its next heartbeat is the next attempt."""
        if member.instance not in self._tasks:
            task = self._tasks[member.instance] = asyncio.create_task(self._run(member))
            task.add_done_callback(lambda _: self._tasks.pop(member.instance, None))

    async def _run(self, member: Member) -> None:
        if member.beat.site == self._own_site:
            await self._probe(member)  # its clients' reads depend on it
            return
        async with self._far:
            await self._probe(member)

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()


class MemberRecords:
    """The record of each member on disk: its addresses, its incarnation, and the number of its last heartbeat."""

    def __init__(self) -> None:
        self._saved: dict[str, tuple[str | int, ...]] = {}
        self._sequences_at: float | None = None

    def due(self, members: Iterable[Member], now_ms: int) -> list[MemberRow]:
        """Return the rows to save now: of members that changed, and once in a while of all."""
        now = asyncio.get_running_loop().time()
        all_due = self._sequences_at is None or now - self._sequences_at >= SAVE_SEQUENCE_S
        if all_due:
            self._sequences_at = now
        rows = [_row(member, now_ms) for member in members]
        return [row for row in rows if all_due or self._saved.get(row.instance) != _identity(row)]

    def saved(self, rows: Iterable[MemberRow]) -> None:
        """Note that rows are on disk."""
        self._saved |= {row.instance: _identity(row) for row in rows}

    def drop(self, instances: Collection[str]) -> None:
        """Drop the records of members that were removed."""
        self._saved = {instance: saved for instance, saved in self._saved.items() if instance not in instances}


def _row(member: Member, now_ms: int) -> MemberRow:
    beat = member.beat
    place = (beat.site, beat.advertise, beat.advertise_site, beat.version)
    capabilities = " ".join(member.capabilities)
    return MemberRow(member.instance, *place, beat.start, now_ms, member.sequence, beat.name, capabilities)


def _identity(row: MemberRow) -> tuple[str | int, ...]:
    """Return the part of a row whose changes are saved at once."""
    return (*row[:6], row.name, row.capabilities)

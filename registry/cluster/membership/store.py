"""The members as the data directory keeps them, so that an instance finds the others again after a restart, also
without a bus.

Sequence numbers of heartbeats are kept, too: a recorded heartbeat is stale after a restart as it was before.
"""

from collections.abc import Collection, Iterable
from functools import partial

from registry.catalog.database import Database
from registry.catalog.members import MemberRow, all_members, all_sync_points, drop_members, save_members
from registry.catalog.membership import removed_members
from registry.cluster.membership.members import Member, Members
from registry.event_loop.now import now_s
from registry.ports import Clock

SAVE_SEQUENCE_S = 30.0
"""Seconds between two saves of sequence numbers. One commit in half a minute costs an idle instance nothing. Heartbeats
that were recorded in the last half minute before a crash are not recognized as stale after it; even so, they make no
member live."""


class MemberStore:
    """Loads the members at the start, and saves those that have changed."""

    def __init__(self, database: Database, members: Members, clock: Clock) -> None:
        self._database = database
        self._members = members
        self._clock = clock
        self._records = MemberRecords()

    def load(self) -> None:
        """Make known the members that the data directory has, without those that were removed."""
        self._members.load(all_members(self._database), all_sync_points(self._database))
        self._members.remove(removed_members(self._database) - {self._members.own_instance})

    async def save(self) -> None:
        """Save the live members whose records are due."""
        rows = self._records.due(self._members.live(), self._clock.now_ms())
        if rows:
            await self._database.write(partial(save_members, members=rows))
            self._records.saved(rows)

    async def drop(self, instances: Collection[str]) -> None:
        """Delete the records of members that were removed."""
        await self._database.write(partial(drop_members, instances=instances))
        self._records.drop(instances)


class MemberRecords:
    """The record of each member on disk: its addresses, its incarnation, and the number of its last heartbeat."""

    def __init__(self) -> None:
        self._saved: dict[str, tuple[str | int, ...]] = {}
        self._sequences_at: float | None = None

    def due(self, members: Iterable[Member], now_ms: int) -> list[MemberRow]:
        """Return the rows to save now: of members that changed, and once in a while of all."""
        now = now_s()
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
    return MemberRow(member.instance, *place, beat.incarnation, now_ms, member.sequence, beat.name, capabilities)


def _identity(row: MemberRow) -> tuple[str | int, ...]:
    """Return the part of a row whose changes are saved at once."""
    return (*row[:6], row.name, row.capabilities)

"""The other instances of the cluster, as this one knows them, kept so that they can be found without a bus."""

from collections.abc import Iterable
from typing import NamedTuple

from registry.catalog.access import drop_marks
from registry.catalog.database import Database, Transaction

_ALL = """
SELECT instance, site, advertise, advertise_site, version, incarnation, seen_ms, sequence, name, capabilities
FROM members ORDER BY instance
"""


class MemberRow(NamedTuple):
    instance: str
    site: str
    advertise: str
    advertise_site: str
    version: str
    incarnation: int
    seen_ms: int
    sequence: int = 0
    """The number of its last heartbeat of that incarnation."""
    name: str = ""
    capabilities: str = ""
    """In order, separated by spaces."""


class SyncPoint(NamedTuple):
    """The commit number of a member's incarnation up to which its changes are applied here."""

    incarnation: int
    commit_number: int


def save_members(tx: Transaction, members: Iterable[MemberRow]) -> None:
    for member in members:
        tx.execute(
            "INSERT OR REPLACE INTO members (instance, site, advertise, advertise_site, version, incarnation, seen_ms, "
            "sequence, name, capabilities) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            member,
        )


def drop_members(tx: Transaction, instances: Iterable[str]) -> None:
    """Delete the rows of members that are gone for good."""
    for instance in instances:
        tx.execute("DELETE FROM members WHERE instance = ?", (instance,))
        tx.execute("DELETE FROM sync_points WHERE instance = ?", (instance,))


def all_members(database: Database) -> list[MemberRow]:
    return [MemberRow(*row) for row in database.rows(_ALL)]


def save_sync_point(tx: Transaction, instance: str, sync_point: SyncPoint) -> None:
    """Record that all changes of a member up to a commit number are applied here. With them came what a restored
    or a new catalog lacked of access control."""
    drop_marks(tx)
    tx.execute(
        "INSERT OR REPLACE INTO sync_points (instance, incarnation, commit_number) VALUES (?, ?, ?)",
        (instance, *sync_point),
    )


def all_sync_points(database: Database) -> dict[str, SyncPoint]:
    return {
        row[0]: SyncPoint(*row[1:])
        for row in database.rows("SELECT instance, incarnation, commit_number FROM sync_points")
    }

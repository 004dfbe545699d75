"""Removed members, as facts of a document of their own.

A removal is a tombstone: it names an instance id and is never deleted. An instance that returns under a removed id
takes another one.
"""

from crdt.change import Change
from crdt.fact import REMOVED, removed_fact
from registry.catalog.database import Database, Transaction
from registry.catalog.documents import Documents

KIND = "cluster/"
DOCUMENT = KIND + "members"

_REMOVED = """
SELECT f.key, f.writer FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = ? WHERE d.name = ?
"""


def remove_member(tx: Transaction, documents: Documents, instance: str, now_ms: int) -> Change:
    """Remove a member permanently."""
    return documents.write(tx, DOCUMENT, [], [removed_fact(instance, documents.clock.tick(now_ms), documents.writer)])


def removed_members(database: Database) -> set[str]:
    return set(removals(database))


def removals(database: Database) -> dict[str, int]:
    """Return the removed members, each with a writer that has removed it."""
    return dict(database.rows(_REMOVED, (REMOVED, DOCUMENT)))

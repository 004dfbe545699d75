"""Members that are gone for good, as facts of a document of their own.

A tombstone is for ever and is by instance id: whoever comes back under it takes another id. It is never deleted.
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
    """Say that an instance is gone for good."""
    return documents.write(tx, DOCUMENT, [], [removed_fact(instance, documents.clock.tick(now_ms), documents.writer)])


def removed_members(database: Database) -> set[str]:
    return set(removals(database))


def removals(database: Database) -> dict[str, int]:
    """Return the members that are gone for good, each with a writer that has said so."""
    return dict(database.rows(_REMOVED, (REMOVED, DOCUMENT)))

"""Finding unreferenced content, and removing its rows and links.

Content is in use while a live manifest, of any repository, names it. Content that is not in use may still be linked:
its manifest may be on its way, or was deleted. Manifest bodies are in use while a live fact names them.
"""

from collections.abc import Iterable
from typing import NamedTuple

from registry.catalog.database import Database, Reads, Transaction
from registry.catalog.documents import Documents
from registry.catalog.queries import KIND
from registry.event_loop.steps import ROWS_PER_STEP, Steps
from registry.oci.names import Digest
from registry.oci.stored_manifest import UNREADABLE

_IN_USE = """
SELECT 1 FROM descriptors r CROSS JOIN facts f ON f.kind = 'm' AND f.key = r.manifest WHERE r.digest = ? LIMIT 1
"""
_UNUSED = """
SELECT c.digest, c.size FROM content c WHERE c.digest > ? AND NOT EXISTS (
    SELECT 1 FROM descriptors r CROSS JOIN facts f ON f.kind = 'm' AND f.key = r.manifest WHERE r.digest = c.digest
) ORDER BY c.digest LIMIT ?
"""
_BODIES = """
SELECT m.digest FROM manifests m WHERE m.digest > ? AND NOT EXISTS (
    SELECT 1 FROM facts f WHERE f.kind = 'm' AND f.key = m.digest
) ORDER BY m.digest LIMIT ?
"""
_NAMED = """
SELECT m.digest FROM manifests m WHERE m.digest > ? AND EXISTS (
    SELECT 1 FROM facts f WHERE f.kind = 'm' AND f.key = m.digest
) ORDER BY m.digest LIMIT ?
"""
_LINKED = """
SELECT c.digest, c.size FROM content c WHERE c.digest > ? AND EXISTS (
    SELECT 1 FROM facts f WHERE f.kind = 'b' AND f.key = c.digest
) ORDER BY c.digest LIMIT ?
"""
_UNREADABLE = """
SELECT d.name, r.manifest FROM descriptors r CROSS JOIN facts f ON f.kind = 'm' AND f.key = r.manifest
CROSS JOIN documents d ON d.id = f.document WHERE r.digest = ? LIMIT 1
"""


class UnreferencedContent(NamedTuple):
    """Content on this disk that no live manifest names."""

    digest: Digest
    size: int


# A page may walk all content or bodies where few match, so these queries are read aside.


async def unreferenced_content(database: Reads, after: str, limit: int) -> list[UnreferencedContent]:
    """Return up to `limit`, after the digest `after`, in order."""
    rows = await database.rows_aside(_UNUSED, (after, limit))
    return [UnreferencedContent(Digest(digest), size) for digest, size in rows]


async def linked_content(database: Reads, after: str, limit: int) -> list[UnreferencedContent]:
    """Content on this disk that is linked somewhere."""
    rows = await database.rows_aside(_LINKED, (after, limit))
    return [UnreferencedContent(Digest(digest), size) for digest, size in rows]


async def unreferenced_bodies(database: Reads, after: str, limit: int) -> list[Digest]:
    """Manifest bodies that no live fact names."""
    return [Digest(digest) for (digest,) in await database.rows_aside(_BODIES, (after, limit))]


async def referenced_bodies(database: Reads, after: str, limit: int) -> list[Digest]:
    """Manifest bodies on this disk that a live fact names."""
    return [Digest(digest) for (digest,) in await database.rows_aside(_NAMED, (after, limit))]


def unreadable_manifest(database: Database) -> tuple[str, Digest] | None:
    """A repository and a live manifest of it that this version cannot read, if there is one."""
    row = database.row(_UNREADABLE, (UNREADABLE,))
    return (row[0].removeprefix(KIND), Digest(row[1])) if row else None


def is_referenced(source: Database | Transaction, digest: Digest) -> bool:
    return source.row(_IN_USE, (digest,)) is not None


def is_linked(tx: Transaction, digest: Digest) -> bool:
    return tx.row("SELECT 1 FROM facts WHERE kind = 'b' AND key = ? LIMIT 1", (digest,)) is not None


def links_of(source: Database | Transaction, digest: Digest) -> frozenset[bytes]:
    """The live links of a blob in all repositories, as hashes of what they say: no two are alike."""
    rows = source.rows("SELECT hash FROM facts WHERE kind = 'b' AND key = ?", (digest,))
    return frozenset(hashed for (hashed,) in rows)


def drop_links(tx: Transaction, documents: Documents, digests: Iterable[Digest]) -> Steps[None]:
    """Delete every live link of some blobs, one operation for each repository, in bounded steps."""
    found: dict[str, list[tuple[int, int]]] = {}
    sql = (
        "SELECT d.name, f.writer, f.clock FROM facts f CROSS JOIN documents d ON d.id = f.document "
        "WHERE f.kind = 'b' AND f.key = ?"
    )
    for digest in digests:
        for number, (name, writer, clock) in enumerate(tx.rows(sql, (digest,)), 1):
            found.setdefault(name, []).append((writer, clock))
            if number % ROWS_PER_STEP == 0:
                yield
    for number, (name, identities) in enumerate(found.items()):
        if number:
            yield
        yield from documents.write_in_steps(tx, name, identities, [])


def drop_bodies(tx: Transaction, digests: Iterable[Digest]) -> Steps[int]:
    """Delete manifest bodies, except those that a live fact refers to by now. Return how many were deleted."""
    count = 0
    for number, digest in enumerate(digests):
        if number:
            yield
        if tx.row("SELECT 1 FROM facts WHERE kind = 'm' AND key = ? LIMIT 1", (digest,)) is None:
            tx.execute("DELETE FROM manifests WHERE digest = ?", (digest,))
            tx.execute("DELETE FROM descriptors WHERE manifest = ?", (digest,))
            count += 1
    return count

"""Untagged manifests: without a tag, and no part or companion of a manifest that is kept.

Tagged manifests and recent ones are kept, and so is everything that belongs to a manifest that is kept: the children of
an index, the subject it is about, and its referrers, over all levels.
"""

from typing import Any, NamedTuple

import apsw

from crdt.clock import COUNTER_BITS
from registry.catalog.database import Database, Transaction
from registry.catalog.documents import Documents
from registry.catalog.queries import document_name
from registry.catalog.repository import delete_manifest
from registry.errors import ManifestUnknown
from registry.event_loop.steps import Steps
from registry.oci.names import Digest, Repository

_MANIFESTS = """
SELECT m.key, MAX(m.time), EXISTS (
    SELECT 1 FROM facts t WHERE t.document = d.id AND t.kind = 't' AND t.digest = m.key
), b.subject
FROM documents d CROSS JOIN facts m ON m.document = d.id AND m.kind = 'm' LEFT JOIN manifests b ON b.digest = m.key
WHERE d.name = ? GROUP BY m.key
"""
DELETED_A_STEP = 8
"""Manifests that are deleted before the loop turns: each is an operation of its own, of 0.3 ms."""
_TAGGED = """
SELECT 1 FROM documents d CROSS JOIN facts t ON t.document = d.id AND t.kind = 't' AND t.digest = ? WHERE d.name = ?
"""


class _Manifest(NamedTuple):
    digest: Digest
    time: int
    tagged: int
    subject: str | None


async def untagged(database: Database, repository: Repository, before_ms: int) -> list[Digest]:
    """Return the manifests of a repository that can go, referred to last before a time (wall milliseconds). They are
    read aside, since a repository may have any number of them."""
    return await database.read_aside(lambda connection: _untagged(connection, repository, before_ms))


def _untagged(connection: apsw.Connection, repository: Repository, before_ms: int) -> list[Digest]:
    found: Any = connection.execute(_MANIFESTS, (document_name(repository),))
    rows = [_Manifest(*row) for row in found]
    belongs: dict[str, set[str]] = {}
    for row in rows:
        parts: Any = connection.execute("SELECT digest FROM descriptors WHERE manifest = ?", (row.digest,))
        belongs[row.digest] = {part for (part,) in parts}
    for row in rows:
        if row.subject is not None and row.subject in belongs:
            belongs[row.subject].add(row.digest)
            belongs[row.digest].add(row.subject)
    kept = {str(row.digest) for row in rows if row.tagged or row.time >> COUNTER_BITS >= before_ms}
    pending = list(kept)
    while pending:
        for other in belongs.get(pending.pop(), set()) - kept:
            kept.add(other)
            pending.append(other)
    return [row.digest for row in rows if row.digest not in kept]


def remove_untagged(tx: Transaction, documents: Documents, repository: Repository, digests: list[Digest]) -> Steps[int]:
    """Delete manifests that have not been tagged meanwhile, in bounded steps. Return how many there were."""
    count = 0
    for number, digest in enumerate(digests, 1):
        if number % DELETED_A_STEP == 0:
            yield
        if tx.row(_TAGGED, (digest, document_name(repository))) is None:
            try:
                yield from delete_manifest(tx, documents, repository, digest)
                count += 1
            except ManifestUnknown:
                pass  # another client has deleted it
    return count

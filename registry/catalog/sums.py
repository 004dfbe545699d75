"""Two sums of the whole content: what the manifests need, and what the disk holds.

Both are digests of the sorted list of digests, so equal sums mean the same content, at one instance or at two. The
needed content is every live manifest of the repositories whose names have the requested prefix, and everything in the
registry that such a manifest refers to. The held content is what is on this disk of the content that these repositories
link or refer to; with an empty prefix, all content on this disk.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw
from blake3 import blake3

from registry.catalog.queries import KIND

_OF = "d.name >= ?1 AND d.name < ?2"
_NEEDED = f"""
SELECT f.key, f.size FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm' WHERE {_OF}
UNION SELECT b.key, b.size FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm'
    CROSS JOIN descriptors r ON r.manifest = f.key
    CROSS JOIN facts b ON b.document = d.id AND b.kind = 'b' AND b.key = r.digest
    WHERE {_OF}
ORDER BY 1
"""
_HELD = f"""
SELECT m.digest, LENGTH(m.body) FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm'
    CROSS JOIN manifests m ON m.digest = f.key WHERE {_OF}
UNION SELECT c.digest, c.size FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'b'
    CROSS JOIN content c ON c.digest = f.key WHERE {_OF}
ORDER BY 1
"""
_ALL_HELD = "SELECT digest, LENGTH(body) FROM manifests UNION SELECT digest, size FROM content ORDER BY 1"


class Sum(NamedTuple):
    """The sum of a set of content: a digest over the set, the number of contents and their size."""

    digest: str
    """BLAKE3 of the digests of the set, in order, a line each."""
    contents: int
    size_bytes: int


class Sums(NamedTuple):
    """The sums of needed and of held content, and the difference."""

    needed: Sum
    held: Sum
    missing: list[str]
    """Digests that are needed and not on this disk, up to the limit of the request."""
    dangling: list[str]
    """Digests that are on this disk and not needed, up to the same limit."""
    missing_count: int
    dangling_count: int


def content_sums(connection: apsw.Connection, prefix: str, limit: int) -> Sums:
    """Return the sums of the repositories whose names begin with `prefix`; lists of what differs are cut at `limit`."""
    first = KIND + prefix
    bounds = (first, first + "\U0010ffff")
    rows: Any = connection.execute(_NEEDED, bounds)
    needed = dict(rows)
    rows = connection.execute(_HELD, bounds) if prefix else connection.execute(_ALL_HELD)
    held = dict(rows)
    missing = [digest for digest in needed if digest not in held]
    dangling = [digest for digest in held if digest not in needed]
    return Sums(
        _sum(needed.items()), _sum(held.items()), missing[:limit], dangling[:limit], len(missing), len(dangling)
    )


def _sum(entries: Iterable[tuple[str, int]]) -> Sum:
    hashed, count, size_bytes = blake3(), 0, 0
    for digest, size in entries:
        hashed.update(f"{digest}\n".encode())
        count, size_bytes = count + 1, size_bytes + size
    return Sum(hashed.hexdigest(32), count, size_bytes)

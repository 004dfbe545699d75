"""The referrers of a manifest, as the referrers API lists them: newest first, filtered before the list is cut.

Referrers are the live manifests of a repository that have the manifest as their subject, and those that an index under
the subject's tag name contains (the "Referrers Tag Schema"). The index of every live fact about that tag counts, since
two sites may each have pushed a correct one. The descriptor of a referrer comes from its manifest, never from an index.

A list that is too long for one page continues at a position in the order of time. A manifest that is pushed again
meanwhile moves to the front, before the position, and would be missed. Manifests that have become newer than the first
page therefore come last.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import apsw

from registry.catalog.database import Reads
from registry.catalog.queries import document_name
from registry.catalog.winner import winner_first
from registry.oci.names import Digest, Repository, Tag, is_digest

FEW = 256
"""Referrers up to this number are looked up on the loop, in 2 to 5 ms. There may be any number: more are read aside."""
LATEST = 2**63 - 1

_COUNT = """
SELECT COUNT(*) FROM (
    SELECT 1 FROM manifests m WHERE m.subject = ?1
    UNION ALL
    SELECT 1 FROM documents d CROSS JOIN facts t ON t.document = d.id AND t.kind = 't' AND t.key = ?2
        CROSS JOIN descriptors r ON r.manifest = t.digest WHERE d.name = ?3
    LIMIT ?4
)
"""
_LIVE = """
SELECT MAX(f.time) AS latest, r.digest FROM (
    SELECT m.digest AS digest FROM manifests m WHERE m.subject = ?1
    UNION
    SELECT r.digest FROM documents d CROSS JOIN facts t ON t.document = d.id AND t.kind = 't' AND t.key = ?2
        CROSS JOIN descriptors r ON r.manifest = t.digest WHERE d.name = ?3
) r
CROSS JOIN documents d ON d.name = ?3
CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm' AND f.key = r.digest
LEFT JOIN manifests m ON m.digest = r.digest
WHERE ?4 IS NULL OR m.artifact_type = ?4
GROUP BY r.digest ORDER BY latest DESC, r.digest
"""
_ROW = f"""
SELECT f.media_type, COALESCE(LENGTH(m.body), f.size), m.artifact_type, m.annotations
FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm' AND f.key = ?
LEFT JOIN manifests m ON m.digest = f.key
WHERE d.name = ? ORDER BY {winner_first("f")} LIMIT 1
"""


class Referrer(NamedTuple):
    """A live manifest that refers to another."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str | None
    annotations: bytes | None


class Position(NamedTuple):
    """The position of a client in a list. Left are the entries with a time above `low` and below (`time`, `digest`),
    newest first, and then the entries that are newer than `top`, the newest time as of the first page."""

    low: int
    top: int
    time: int
    digest: str

    def text(self) -> str:
        return f"{self.low + 1:x}.{self.top:x}.{self.time:x}.{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The inverse of `text`; None for anything else."""
        found = _POSITION.match(text)
        if found is None or (found[4] and not is_digest(found[4])):
            return None
        return cls(int(found[1], 16) - 1, int(found[2], 16), int(found[3], 16), found[4])


_POSITION = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([a-z0-9:]{0,200})\Z")
BEGINNING = Position(-1, LATEST, LATEST, "")


class Listed(NamedTuple):
    """A referrer, and the position after it."""

    referrer: Referrer
    behind: Position


class ReferrersQuery(NamedTuple):
    """A query for the referrers of a manifest: all or those of one artifact type, from a position on."""

    repository: Repository
    subject: Digest
    artifact_type: str | None
    position: Position


def has_few_referrers(database: Reads, query: ReferrersQuery) -> bool:
    """Return whether looking them up takes no longer than a step."""
    names = query.subject, _tag(query.subject), document_name(query.repository)
    return int(database.row(_COUNT, (*names, FEW + 1))[0]) <= FEW


def walk_referrers(connection: apsw.Connection, query: ReferrersQuery) -> Iterator[Listed]:
    """Yield referrers from a position on, in the order of the list, as of one commit."""
    name, position = document_name(query.repository), query.position
    bindings = query.subject, _tag(query.subject), name, query.artifact_type
    found: Any = connection.execute(_LIVE, bindings).fetchall()
    latest = found[0][0] if found else 0
    top = latest if position == BEGINNING else position.top
    older = [entry for entry in found if position.low < entry[0] <= top and _is_behind(entry, position)]
    newer = [entry for entry in found if entry[0] > top]
    for entries, low, upto in ((older, position.low, top), (newer, top, latest)):
        for time, digest in entries:
            row: Any = connection.execute(_ROW, (digest, name)).fetchone()
            yield Listed(Referrer(digest, *row), Position(low, upto, time, digest))


def _is_behind(entry: tuple[int, str], position: Position) -> bool:
    time, digest = entry
    return time < position.time or (time == position.time and digest > position.digest)


def _tag(subject: Digest) -> Tag:
    """The tag under which clients keep a list of referrers at registries without the API."""
    return Tag(subject.replace(":", "-", 1)[: len("sha256-") + 64])

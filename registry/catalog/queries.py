"""The queries of pulls and lists, over committed data. One query sees one commit; several queries that must see the
same commit use `Database.one_step`. Lists are bounded range scans.

Joins are CROSS JOINs, which SQLite carries out in the order they are written: its own choice, made without knowing how
large repositories are, walks all manifests of one to find a tag.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from registry.catalog.database import Reads
from registry.catalog.winner import winner_first
from registry.oci.manifest import PartRow
from registry.oci.names import Digest, Repository, Tag

KIND = "repository/"


def document_name(repository: Repository) -> str:
    """The document that holds a repository's facts."""
    return KIND + repository


class ManifestRow(NamedTuple):
    """A live manifest reference, and the body where it is here."""

    digest: Digest
    media_type: str
    size: int
    """The size of the body where it is here; else the size that the fact states."""
    writer: int
    body: bytes | None


class BlobRow(NamedTuple):
    """A live blob link."""

    size: int
    """The size of the content where it is on this disk; else the size that the link states."""
    writer: int
    held: bool
    """True when the content is on this disk."""


class TagFact(NamedTuple):
    """One live fact about a tag."""

    digest: Digest
    time: int
    writer: int


_BY_TAG = f"""
SELECT m.key, m.media_type, COALESCE(LENGTH(b.body), m.size), t.writer, b.body
FROM documents d
CROSS JOIN facts t ON t.document = d.id AND t.kind = 't' AND t.key = ?
CROSS JOIN facts m ON m.document = d.id AND m.kind = 'm' AND m.key = t.digest
LEFT JOIN manifests b ON b.digest = m.key
WHERE d.name = ? ORDER BY {winner_first("t")}, {winner_first("m")} LIMIT 1
"""
_BY_DIGEST = f"""
SELECT m.key, m.media_type, COALESCE(LENGTH(b.body), m.size), m.writer, b.body
FROM documents d
CROSS JOIN facts m ON m.document = d.id AND m.kind = 'm' AND m.key = ?
LEFT JOIN manifests b ON b.digest = m.key
WHERE d.name = ? ORDER BY {winner_first("m")} LIMIT 1
"""
_BLOB = f"""
SELECT COALESCE(c.size, f.size), f.writer, c.digest IS NOT NULL
FROM documents d
CROSS JOIN facts f ON f.document = d.id AND f.kind = 'b' AND f.key = ?
LEFT JOIN content c ON c.digest = f.key
WHERE d.name = ? ORDER BY {winner_first("f")} LIMIT 1
"""
_ANYWHERE = """
SELECT COALESCE(c.size, f.size), f.writer, c.digest IS NOT NULL
FROM facts f CROSS JOIN documents d ON d.id = f.document AND d.not_understood = 0
LEFT JOIN content c ON c.digest = f.key WHERE f.kind = 'b' AND f.key = ? LIMIT 1
"""
_TAGS = """
SELECT DISTINCT f.key FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 't'
WHERE d.name = ? AND f.key > ? ORDER BY f.key LIMIT ?
"""
_TAG_FACTS = f"""
SELECT f.key, f.digest, f.time, f.writer FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 't'
WHERE d.name = ? AND f.key BETWEEN ? AND ? ORDER BY f.key, {winner_first("f")}
"""
_WANTED = """
SELECT DISTINCT w.digest FROM missing_bodies w
CROSS JOIN facts f ON f.document = w.document AND f.kind = 'm' AND f.key = w.digest
"""
# A document of another kind, such as that of the members, is no repository; its facts are facts like any.
_DOCUMENTS = f"""
SELECT COUNT(*) FILTER (WHERE name > '{KIND}' AND name < '{KIND[:-1]}0'), COALESCE(SUM(facts), 0)
FROM documents WHERE facts > 0
"""
_COUNTS = (
    (_DOCUMENTS, ("repositories", "facts")),
    ("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM content", ("blobs", "blob_bytes")),
    ("SELECT COUNT(*) FROM conflicts", ("conflicts",)),
    (f"SELECT COUNT(*) FROM ({_WANTED} LIMIT 100000)", ("manifests_missing",)),
)


class Queries:
    """The queries on the catalog's reading connection."""

    def __init__(self, database: Reads) -> None:
        self._database = database

    def manifest_by_tag(self, repository: Repository, tag: str) -> ManifestRow | None:
        """Return the manifest that the winning fact of a tag points at; None for an unknown tag."""
        row = self._database.row(_BY_TAG, (tag, KIND + repository))
        return ManifestRow(*row) if row else None

    def manifest(self, repository: Repository, digest: Digest) -> ManifestRow | None:
        row = self._database.row(_BY_DIGEST, (digest, KIND + repository))
        return ManifestRow(*row) if row else None

    def refers_to(self, repository: Repository, manifest: Digest) -> bool:
        """Return whether a live fact of a repository refers to a manifest."""
        sql = (
            "SELECT 1 FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm' AND f.key = ? "
            "WHERE d.name = ? LIMIT 1"
        )
        return self._database.row(sql, (manifest, document_name(repository))) is not None

    def has_seen(self, repository: Repository, writer: int, clock: int) -> bool:
        """Return whether all of a writer's entries before `clock` in a repository are applied here."""
        sql = (
            "SELECT 1 FROM documents d CROSS JOIN vectors v ON v.document = d.id AND v.writer = ? AND v.clock >= ? "
            "WHERE d.name = ?"
        )
        return self._database.row(sql, (writer, clock, document_name(repository))) is not None

    def without_body(self, repository: Repository, digests: Sequence[Digest]) -> list[Digest]:
        """Return those of some manifests that are referred to in a repository and whose bodies are not here."""
        sql = (
            "SELECT 1 FROM documents d CROSS JOIN facts f ON f.document = d.id AND f.kind = 'm' AND f.key = ?1 "
            "WHERE d.name = ?2 AND NOT EXISTS (SELECT 1 FROM manifests WHERE digest = ?1) LIMIT 1"
        )
        name = document_name(repository)
        return [digest for digest in digests if self._database.row(sql, (digest, name)) is not None]

    def parts_of(self, manifest: Digest) -> list[PartRow]:
        """Return what a manifest refers to, whose body is here: at most MAX_PARTS of it."""
        sql = "SELECT kind, digest, required FROM descriptors WHERE manifest = ?"
        return [PartRow(kind, part, bool(required)) for kind, part, required in self._database.rows(sql, (manifest,))]

    def blob(self, repository: Repository, digest: Digest) -> BlobRow | None:
        row = self._database.row(_BLOB, (digest, KIND + repository))
        return BlobRow(*row) if row else None

    def blob_in_any_repository(self, digest: Digest) -> BlobRow | None:
        """Return a blob's link in some repository that this version understands."""
        row = self._database.row(_ANYWHERE, (digest,))
        return BlobRow(*row) if row else None

    def is_held(self, digest: Digest) -> bool:
        """Return whether a blob's content is on this disk."""
        return self._database.row("SELECT 1 FROM content WHERE digest = ?", (digest,)) is not None

    async def links_not_held(self, after: str, limit: int) -> list[Digest]:
        """Return up to `limit` linked blobs, after the digest `after`, in order, whose content is not on this disk."""
        sql = (
            "SELECT DISTINCT f.key FROM facts f WHERE f.kind = 'b' AND f.key > ? "
            "AND NOT EXISTS (SELECT 1 FROM content c WHERE c.digest = f.key) ORDER BY f.key LIMIT ?"
        )
        return [Digest(key) for (key,) in await self._database.rows_aside(sql, (after, limit))]

    def links_of(self, digest: Digest) -> list[tuple[Repository, tuple[int, int]]]:
        """Return the repositories in which a blob is linked, each with the size and the writer of the link."""
        sql = (
            "SELECT d.name, f.size, f.writer FROM facts f CROSS JOIN documents d ON d.id = f.document "
            "WHERE f.kind = 'b' AND f.key = ?"
        )
        rows = self._database.rows(sql, (digest,))
        return [(Repository(name.removeprefix(KIND)), (size, writer)) for name, size, writer in rows]

    def repository_exists(self, repository: Repository) -> bool:
        sql = "SELECT 1 FROM documents WHERE name = ? AND facts > 0"
        return self._database.row(sql, (KIND + repository,)) is not None

    def any_begins(self, prefix: str) -> bool:
        """Return whether there is a repository whose name begins with `prefix`."""
        sql = "SELECT 1 FROM documents WHERE facts > 0 AND name >= ? AND name < ? LIMIT 1"
        first = KIND + prefix
        return self._database.row(sql, (first, first + "\U0010ffff")) is not None

    def tags(self, repository: Repository, after: str, limit: int) -> list[Tag]:
        """Return up to `limit` tags after `after`, in byte order."""
        return [Tag(tag) for (tag,) in self._database.rows(_TAGS, (KIND + repository, after, limit))]

    def repositories(self, after: str, limit: int) -> list[Repository]:
        """Return up to `limit` repositories that hold anything, after `after`, in byte order."""
        sql = "SELECT name FROM documents WHERE facts > 0 AND name > ? AND name < ? ORDER BY name LIMIT ?"
        rows = self._database.rows(sql, (KIND + after, KIND[:-1] + "0", limit))
        return [Repository(name.removeprefix(KIND)) for (name,) in rows]

    def body(self, digest: Digest) -> bytes | None:
        row = self._database.row("SELECT body FROM manifests WHERE digest = ?", (digest,))
        return row[0] if row else None

    def has_body(self, digest: Digest) -> bool:
        return self._database.row("SELECT 1 FROM manifests WHERE digest = ?", (digest,)) is not None

    def bodies_after(self, number: int, limit: int) -> list[tuple[int, Digest, bytes]]:
        """Return manifest bodies in the order in which they came, each with its number, after a number; 0 begins."""
        sql = "SELECT rowid, digest, body FROM manifests WHERE rowid > ? ORDER BY rowid LIMIT ?"
        return [(row[0], Digest(row[1]), row[2]) for row in self._database.rows(sql, (number, limit))]

    def missing_bodies(self, limit: int) -> list[Digest]:
        """Manifests that live facts name and whose bodies are not here."""
        return [Digest(digest) for (digest,) in self._database.rows(f"{_WANTED} LIMIT ?", (limit,))]

    def pushed_to(self, manifest: Digest) -> str | None:
        """The instance that a manifest was pushed to, where it is known."""
        sql = "SELECT f.writer FROM facts f WHERE f.kind = 'm' AND f.key = ? LIMIT 1"
        row = self._database.row(sql, (manifest,))
        return self.instance_of(row[0]) if row else None

    def facts_of_tag(self, repository: Repository, tag: Tag) -> list[TagFact]:
        """All live facts of one tag, the winner first."""
        return self.tag_facts(repository, tag, tag).get(tag, [])

    def tag_facts(self, repository: Repository, first: str, last: str) -> dict[Tag, list[TagFact]]:
        """All live facts of the tags from `first` to `last`, the winner of each first."""
        found: dict[Tag, list[TagFact]] = {}
        for tag, *fact in self._database.rows(_TAG_FACTS, (KIND + repository, first, last)):
            found.setdefault(tag, []).append(TagFact(*fact))
        return found

    def conflicts(self, limit: int) -> list[tuple[Repository, Tag]]:
        """Tags with several live facts that disagree."""
        sql = (
            "SELECT d.name, c.tag FROM conflicts c CROSS JOIN documents d ON d.id = c.document "
            "ORDER BY d.name, c.tag LIMIT ?"
        )
        return [(name.removeprefix(KIND), tag) for name, tag in self._database.rows(sql, (limit,))]

    async def conflict_count(self) -> int:
        ((count,),) = await self._database.rows_aside("SELECT COUNT(*) FROM conflicts")
        return int(count)

    async def counts(self) -> dict[str, int]:
        """Return the totals over all repositories and of this disk. Of a million blobs it takes a tenth of a
        second."""
        return await self._database.read_aside(_counts)

    def instance_of(self, writer: int) -> str | None:
        """The instance a writer belongs to, where it is known: a hint at who has what the writer named."""
        row = self._database.row("SELECT instance FROM writers WHERE writer = ?", (writer,))
        return row[0] if row else None

    def writers_of(self, documents: Iterable[str]) -> dict[str, str]:
        """The instances of the writers (hexadecimal) in some documents, where they are known."""
        sql = (
            "SELECT w.writer, w.instance FROM documents d CROSS JOIN vectors v ON v.document = d.id "
            "CROSS JOIN writers w ON w.writer = v.writer WHERE d.name = ?"
        )
        rows = (row for name in documents for row in self._database.rows(sql, (name,)))
        return {f"{writer:x}": instance for writer, instance in rows}


def _counts(connection: apsw.Connection) -> dict[str, int]:
    return {
        name: count
        for sql, names in _COUNTS
        for row in connection.execute(sql)
        for name, count in zip(names, row, strict=True)
    }

"""Which content files are on this disk, and uploads under way, as rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from crdt.fact import BLOB
from registry.catalog.database import Reads, Transaction
from registry.catalog.wrong_sizes import compare_content
from registry.oci.names import Digest, Repository

CONTENTS_ADDED = "contents added"
"""Key of the catalog for how many contents were ever added to it."""
_COUNT = "INSERT INTO meta (key, value) VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"


class ContentRow(NamedTuple):
    """A content file on this disk."""

    digest: Digest
    size: int
    chunk_digests: bytes
    """The BLAKE3 digests of each MiB, concatenated."""
    checked_ms: int


class UsedRow(NamedTuple):
    """A content file on this disk, and when it was read last, or came, in wall milliseconds."""

    digest: Digest
    size: int
    used_ms: int


class UploadRow(NamedTuple):
    """An upload's durable part."""

    id: str
    repository: Repository
    size: int
    sha256: str
    """The hexadecimal digest of those `size` bytes."""
    updated_ms: int


def add_content(tx: Transaction, digest: Digest, size: int, chunk_digests: bytes, now_ms: int) -> None:
    """Record a content file that is in its place, verified and durable."""
    compare_content(tx, BLOB, digest, size)
    tx.execute(
        "INSERT OR REPLACE INTO content (digest, size, chunk_digests, checked_ms, used_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
        (digest, size, chunk_digests, now_ms),
    )
    tx.execute(_COUNT, (CONTENTS_ADDED,))
    tx.note_content_added()


def note_used(tx: Transaction, used: Mapping[Digest, int]) -> None:
    """Record when contents were read, in wall milliseconds."""
    for digest, at_ms in used.items():
        tx.execute("UPDATE content SET used_ms = ? WHERE digest = ?", (at_ms, digest))


def least_used(database: Reads, after: tuple[int, str], limit: int) -> list[UsedRow]:
    """Return content in the order of its last use, after a time and a digest."""
    sql = "SELECT digest, size, used_ms FROM content WHERE (used_ms, digest) > (?, ?) ORDER BY used_ms, digest LIMIT ?"
    return [UsedRow(*row) for row in database.rows(sql, (*after, limit))]


async def content_bytes_aside(database: Reads) -> int:
    """Return how many bytes of content are on this disk, counted in the executor."""

    def count(connection: apsw.Connection) -> int:
        total: Any = connection.execute("SELECT COALESCE(SUM(size), 0) FROM content").fetchone()
        return int(total[0])

    return await database.read_aside(count)


def held_size(database: Reads, digest: Digest) -> int | None:
    """The size of a content file on this disk, or None without one."""
    row = database.row("SELECT size FROM content WHERE digest = ?", (digest,))
    return row[0] if row else None


def content_checked(database: Reads, digest: Digest) -> tuple[int, int] | None:
    """The size of a content file on this disk, and when it was last checked, in wall milliseconds."""
    row = database.row("SELECT size, checked_ms FROM content WHERE digest = ?", (digest,))
    return (row[0], row[1]) if row else None


def is_due(checked_ms: int, now_ms: int, after_ms: int) -> bool:
    """Return whether content must be verified before it is sent: its last check is `after_ms` or more ago, or lies in
    the future and was made under a wrong clock."""
    return not 0 <= now_ms - checked_ms < after_ms


def find_content(database: Reads, digest: Digest) -> ContentRow | None:
    row = database.row("SELECT digest, size, chunk_digests, checked_ms FROM content WHERE digest = ?", (digest,))
    return ContentRow(*row) if row else None


def due_content(database: Reads, now_ms: int, every_ms: int, limit: int) -> list[ContentRow]:
    """Content whose last check is `every_ms` or more ago, the oldest first; and what was checked in the future, when
    the clock was wrong."""
    sql = (
        "SELECT digest, size, chunk_digests, checked_ms FROM content INDEXED BY content_by_check "
        "WHERE checked_ms {} ? ORDER BY checked_ms LIMIT ?"
    )
    found = database.rows(sql.format("<="), (now_ms - every_ms, limit))
    found += database.rows(sql.format(">"), (now_ms, limit - len(found)))
    return [ContentRow(*row) for row in found]


def last_content(database: Reads) -> int:
    """The number of the content that came last."""
    return int(database.row("SELECT COALESCE(MAX(rowid), 0) FROM content")[0])


def content_between(database: Reads, number: int, upto: int, limit: int) -> tuple[int, list[ContentRow]]:
    """Return content in the order in which it came, after the `number` that the last call returned; 0 begins."""
    sql = (
        "SELECT rowid, digest, size, chunk_digests, checked_ms FROM content "
        "WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?"
    )
    rows = database.rows(sql, (number, upto, limit))
    return rows[-1][0] if rows else number, [ContentRow(*row[1:]) for row in rows]


def note_checked(tx: Transaction, digests: Iterable[Digest], now_ms: int) -> None:
    """Record that every MiB of these contents matches its digest of when it came."""
    for digest in digests:
        tx.execute("UPDATE content SET checked_ms = ? WHERE digest = ?", (now_ms, digest))


def oldest_check_ms(database: Reads) -> int | None:
    """Return the time of the oldest check among all content."""
    found: int | None = database.row("SELECT MIN(checked_ms) FROM content")[0]
    return found


def content_bytes(database: Reads) -> int:
    return int(database.row("SELECT COALESCE(SUM(size), 0) FROM content")[0])


def lacking(database: Reads, manifests: Sequence[str], blobs: Sequence[str]) -> list[str]:
    """Return those of some digests of manifests and blobs whose bodies and content files are not on this disk."""
    return [
        digest
        for table, digests in (("manifests", manifests), ("content", blobs))
        for digest in digests
        if database.row(f"SELECT 1 FROM {table} WHERE digest = ?", (digest,)) is None
    ]


def save_upload(tx: Transaction, upload: UploadRow) -> None:
    """Record how many bytes of an upload are durable, unless it has ended: a message may arrive late."""
    tx.execute(
        "INSERT OR REPLACE INTO uploads (id, repository, size, sha256, updated_ms) SELECT ?1, ?2, ?3, ?4, ?5"
        " WHERE NOT EXISTS (SELECT 1 FROM ended_uploads WHERE id = ?1)",
        upload,
    )


def find_upload(database: Reads, upload_id: str) -> UploadRow | None:
    row = database.row("SELECT id, repository, size, sha256, updated_ms FROM uploads WHERE id = ?", (upload_id,))
    return UploadRow(*row) if row else None


def all_uploads(database: Reads) -> dict[str, int]:
    """Return the durable bytes of every upload that has any acknowledged, least recently used first."""
    return {row[0]: row[1] for row in database.rows("SELECT id, size FROM uploads ORDER BY updated_ms, id")}


def end_upload(tx: Transaction, upload_id: str, now_ms: int) -> None:
    """Delete an upload's row, and record that its id is used up."""
    tx.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
    tx.execute("INSERT OR IGNORE INTO ended_uploads (id, ended_ms) VALUES (?, ?)", (upload_id, now_ms))


def upload_has_ended(database: Reads, upload_id: str) -> bool:
    return database.row("SELECT 1 FROM ended_uploads WHERE id = ?", (upload_id,)) is not None


def expired_uploads(database: Reads, before_ms: int) -> list[UploadRow]:
    """Return the uploads to which nothing was added since a time."""
    sql = "SELECT id, repository, size, sha256, updated_ms FROM uploads WHERE updated_ms < ?"
    return [UploadRow(*row) for row in database.rows(sql, (before_ms,))]


def forget_ended_uploads(tx: Transaction, before_ms: int) -> None:
    tx.execute("DELETE FROM ended_uploads WHERE ended_ms < ?", (before_ms,))


def drop_content(tx: Transaction, digest: Digest) -> None:
    """Record that a content file is not in its place any more."""
    tx.execute("DELETE FROM content WHERE digest = ?", (digest,))

"""Which content files are on this disk, and uploads under way, as rows."""

from collections.abc import Sequence
from typing import NamedTuple

from registry.catalog.database import Database, Transaction
from registry.names import Digest, Repository


class UploadRow(NamedTuple):
    """An upload's durable part."""

    id: str
    repository: Repository
    size: int
    sha256: str
    """Of those `size` bytes, hexadecimal."""
    updated_ms: int


def add_content(tx: Transaction, digest: Digest, size: int, checks: bytes, now_ms: int) -> None:
    """A content file is in its place, verified and durable."""
    tx.execute(
        "INSERT OR REPLACE INTO content (digest, size, checks, checked_ms) VALUES (?, ?, ?, ?)",
        (digest, size, checks, now_ms),
    )


def held_size(database: Database, digest: Digest) -> int | None:
    """The size of a content file on this disk, or None without one."""
    row = database.row("SELECT size FROM content WHERE digest = ?", (digest,))
    return row[0] if row else None


def lacking(database: Database, manifests: Sequence[str], blobs: Sequence[str]) -> list[str]:
    """Of these digests of manifests and blobs, those whose bodies and content files are not on this disk."""
    return [
        digest
        for table, digests in (("manifests", manifests), ("content", blobs))
        for digest in digests
        if database.row(f"SELECT 1 FROM {table} WHERE digest = ?", (digest,)) is None
    ]


def save_upload(tx: Transaction, upload: UploadRow) -> None:
    tx.execute(
        "INSERT OR REPLACE INTO uploads (id, repository, size, sha256, updated_ms) VALUES (?, ?, ?, ?, ?)",
        upload,
    )


def find_upload(database: Database, upload_id: str) -> UploadRow | None:
    row = database.row("SELECT id, repository, size, sha256, updated_ms FROM uploads WHERE id = ?", (upload_id,))
    return UploadRow(*row) if row else None


def end_upload(tx: Transaction, upload_id: str, now_ms: int) -> None:
    """Forget an upload, and remember that its id is used up."""
    tx.execute("DELETE FROM uploads WHERE id = ?", (upload_id,))
    tx.execute("INSERT OR IGNORE INTO ended_uploads (id, ended_ms) VALUES (?, ?)", (upload_id, now_ms))


def upload_has_ended(database: Database, upload_id: str) -> bool:
    return database.row("SELECT 1 FROM ended_uploads WHERE id = ?", (upload_id,)) is not None


def expired_uploads(database: Database, before_ms: int) -> list[str]:
    """Uploads that nothing was added to since."""
    return [row[0] for row in database.rows("SELECT id FROM uploads WHERE updated_ms < ?", (before_ms,))]


def forget_ended_uploads(tx: Transaction, before_ms: int) -> None:
    tx.execute("DELETE FROM ended_uploads WHERE ended_ms < ?", (before_ms,))


def drop_content(tx: Transaction, digest: Digest) -> None:
    """A content file is not in its place any more."""
    tx.execute("DELETE FROM content WHERE digest = ?", (digest,))

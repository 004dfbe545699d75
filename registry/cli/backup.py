"""Backups of a data directory, also while an instance runs on it, and starting again from one.

A backup is a directory of the same shape: the catalog, copied by SQLite as of one moment, and the content that this
catalog knows. Content never changes, so it is linked where that is possible and copied once where it is not; the next
backup into the same directory adds what is new and removes what is gone. The catalog takes its place last: a backup
that was broken off leaves the one before it whole.

A restored directory becomes another instance. The original may still run, or other members may know what it did since
the backup, so its instance id and its writer must not be used twice. Everything in the backup merges with what the
others have.
"""

import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import apsw
import msgspec

from registry.catalog import schema
from registry.catalog.access import mark_restored
from registry.catalog.catalog import PATH
from registry.cli.catalog_file import READ_ONLY, instance_of
from registry.cli.target import PART, Target, open_plain
from registry.errors import CannotStart
from registry.oci.names import ALGORITHMS, Digest, algorithm_of, is_digest
from registry.storage.backup_note import FILE, BackupNote
from registry.storage.content_mark import SERIES
from registry.storage.store import READ_BYTES, content_path

RESTORING = "restoring"


class Content(NamedTuple):
    """A content that a catalog knows."""

    digest: Digest
    size: int


class Done(NamedTuple):
    """The result of a backup or a restore."""

    contents: int
    size_bytes: int
    new: int
    """Contents that were not in the target yet."""
    missing: list[Digest]
    """Contents whose files are missing or corrupt; they are left out."""


def backup(source: Path, directory: Path, copy: bool = False) -> Done:
    """Bring a backup up to date. Raises CannotStart for what is no data directory, or no backup of it."""
    _check_is_backup_of(instance_of(source), directory)
    target, part = Target(directory), directory / (PATH + PART)
    _copy_catalog(source / PATH, part)
    known, new, missing = _contents(part), 0, []
    for content in known:
        place = source / content_path(content.digest)
        if not _is_there(place, target, content):
            if _link_or_copy(place, target, copy, content):
                new += 1
            else:
                missing.append(content.digest)
    _leave_out(part, missing)
    _put(part, directory / PATH)
    kept = {content_path(content.digest) for content in known} - {content_path(digest) for digest in missing}
    for path in _files(target):
        if path not in kept:
            target.remove(path)
    sizes = sum(content.size for content in known if content_path(content.digest) in kept)
    return Done(len(kept), sizes, new, missing)


def note_backup(source: Path, directory: Path, done: Done, now_ms: int) -> None:
    """Leave a note for the instance to show. A directory that may only be read is backed up without one."""
    note = BackupNote(now_ms, done.contents, done.size_bytes, len(done.missing), str(directory.absolute()))
    part = source / f"{FILE}{PART}"
    try:
        part.write_bytes(msgspec.json.encode(note))
        part.replace(source / FILE)
    except OSError as error:
        print(f"the backup could not be noted in {source}: {error.strerror}", file=sys.stderr)


def _check_is_backup_of(instance: str, target: Path) -> None:
    """Raises CannotStart for a directory that holds anything but an earlier backup of this instance."""
    if (target / PATH).is_symlink():
        raise CannotStart(f"{target / PATH} is a link; nothing is written there")
    if (target / "lock").exists() or (target.exists() and not (target / PATH).exists() and any(target.iterdir())):
        raise CannotStart(f"{target} is neither empty nor a backup")
    if (target / PATH).exists() and instance_of(target) != instance:
        raise CannotStart(f"{target} is a backup of another instance; each needs a directory of its own")


def restore(source: Path, data: Path, entropy: Callable[[int], bytes] = secrets.token_bytes) -> Done:
    """Make a data directory of a backup, with every content checked. Continue one that was broken off. The
    new id and secret are drawn from `entropy`."""
    if not (source / PATH).is_file():
        raise CannotStart(f"{source} is not a backup: it has no {PATH}")
    if data.exists() and any(data.iterdir()) and not (data / RESTORING).exists():
        raise CannotStart(f"{data} is not empty")
    target, part = Target(data), data / (PATH + PART)
    target.write(RESTORING, b"")
    _copy_catalog(source / PATH, part)
    known, new, missing = _contents(part), 0, []
    for content in known:
        place, path = source / content_path(content.digest), content_path(content.digest)
        if not _is_right(target.open(path), content):
            target.remove(path)
            if _link_or_copy(place, target, True, content):
                new += 1
            else:
                missing.append(content.digest)
    _leave_out(part, missing)
    _rename(part, entropy)
    _put(part, data / PATH)
    target.remove(RESTORING)
    return Done(len(known) - len(missing), sum(c.size for c in known if c.digest not in set(missing)), new, missing)


def _is_there(source: Path, target: Target, content: Content) -> bool:
    """Return whether a backup has a content. A file that the instance has repaired since is copied again."""
    found = target.stat(content_path(content.digest))
    if found is None or found.st_size != content.size:
        return False
    try:
        return source.stat().st_mtime_ns <= found.st_mtime_ns
    except FileNotFoundError:
        return True


def _copy_catalog(source: Path, target: Path) -> None:
    """Copy the catalog as of one moment: in one step, which in WAL mode blocks no writer."""
    file = open_plain(source)
    if file is None:
        raise CannotStart(f"{source} is no catalog: a link, or no regular file")
    file.close()
    try:
        reading = apsw.Connection(f"{source.absolute().as_uri()}?mode=ro", flags=READ_ONLY)
        (version,) = reading.execute("PRAGMA user_version").fetchone()  # type: ignore[misc]
        if version > schema.VERSION:
            raise CannotStart(f"{source} was made by a newer version of Concord")
        for suffix in ("", "-journal", "-wal", "-shm"):  # of one that was broken off
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        writing = _opened(target)
        with writing.backup("main", reading, "main") as step:
            step.step(-1)
        writing.pragma("journal_mode", "delete")
        schema.migrate(writing)
        writing.close()
        reading.close()
    except apsw.Error as error:
        raise CannotStart(f"the catalog {source} cannot be read: {error}") from None


def _opened(catalog: Path) -> apsw.Connection:
    """Open a catalog for writing, whose path is no link."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOFOLLOW
    return apsw.Connection(str(catalog.parent.resolve() / catalog.name), flags=flags)


def _contents(catalog: Path) -> list[Content]:
    connection = _opened(catalog)
    rows: list[Any] = connection.execute("SELECT digest, size FROM content ORDER BY digest").fetchall()
    connection.close()
    wrong = [digest for digest, _ in rows if not is_digest(digest)]
    if wrong:
        raise CannotStart(f"the catalog names content that is none: {wrong[0][:100]!r}")  # files are named by these
    return [Content(Digest(digest), size) for digest, size in rows]


def _leave_out(catalog: Path, missing: list[Digest]) -> None:
    connection = _opened(catalog)
    with connection:
        connection.executemany("DELETE FROM content WHERE digest = ?", ((digest,) for digest in missing))
    connection.close()


def _rename(catalog: Path, entropy: Callable[[int], bytes]) -> None:
    connection = _opened(catalog)
    with connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'instance'", (entropy(16).hex(),))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'secret'", (entropy(32),))
        mark_restored(connection.execute)
        connection.execute("DELETE FROM meta WHERE key = ?", (SERIES,))  # the new directory has no mark yet
        for table in ("uploads", "ended_uploads", "sync_points"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()


def _put(part: Path, place: Path) -> None:
    """Move a catalog to its place, durably, and remove the write-ahead log of the one before."""
    _sync(part)
    for suffix in ("-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    part.replace(place)
    _sync(place.parent)


def _link_or_copy(source: Path, target: Target, copy: bool, content: Content) -> bool:
    """Link or copy a content file, durably. Return False when it is missing or incomplete."""
    if _size(source) != content.size:
        return False
    path = content_path(content.digest)
    try:
        linked = not copy and _link(source, target, path)
        if not linked:
            _copy(source, target, path)
    except FileNotFoundError:
        return False  # collected meanwhile
    if not linked and not _is_right(target.open(path + PART), content):  # what is linked costs nothing, and is not read
        target.drop(path)
        return False
    target.put(path, durably=True)
    return True


def _link(source: Path, target: Target, path: str) -> bool:
    """Link a content file. Return False where the file system cannot."""
    try:
        target.link(source, path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _copy(source: Path, target: Target, path: str) -> None:
    reading = open_plain(source)
    if reading is None:
        raise FileNotFoundError(source)
    with reading, target.create(path) as writing:
        shutil.copyfileobj(reading, writing, READ_BYTES)
        writing.flush()
        os.fsync(writing.fileno())


def _is_right(file: BinaryIO | None, content: Content) -> bool:
    """Return whether a file has the bytes of its digest, and close it."""
    if file is None:
        return False
    hashed = hashlib.new(algorithm_of(content.digest))
    with file:
        if os.fstat(file.fileno()).st_size != content.size:
            return False
        while piece := file.read(READ_BYTES):
            hashed.update(piece)
    return content.digest.endswith(f":{hashed.hexdigest()}")


def _files(target: Target) -> Iterator[str]:
    """The content files of a directory, and parts of such."""
    for algorithm in ALGORITHMS:
        for first in target.names(f"blobs/{algorithm}"):
            if len(first) == 2:
                yield from (f"blobs/{algorithm}/{first}/{name}" for name in target.names(f"blobs/{algorithm}/{first}"))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Backups of a data directory, also while an instance runs on it, and starting again from one.

A backup is a directory of the same shape: the catalog, copied by SQLite as of one moment, and the content that this
catalog knows. Content never changes, so it is linked where that is possible and copied once where it is not; the next
backup into the same directory adds what is new and removes what is gone. The catalog takes its place last: a backup
that was broken off leaves the one before it whole.

A restored directory is another instance. The one that the backup was made of may still run, or what it did since may
be known to others: what is said under its name must not be said twice. All it has merges with what others know.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from registry.blobs.store import READ_BYTES, content_path
from registry.catalog import schema
from registry.catalog.catalog import PATH
from registry.cli.catalog_file import READ_ONLY, open_read_only
from registry.errors import CannotStart
from registry.names import ALGORITHMS, Digest, algorithm_of, is_digest

PART = ".part"
RESTORING = "restoring"


class Content(NamedTuple):
    """A content that a catalog knows."""

    digest: Digest
    size: int


class Done(NamedTuple):
    """How a backup or a restore went."""

    contents: int
    size_bytes: int
    new: int
    """Contents that were not in the target yet."""
    missing: list[Digest]
    """Contents whose files are not there or not right; they are left out."""


def backup(source: Path, target: Path, copy: bool = False) -> Done:
    """Bring a backup up to date. Raises CannotStart for what is no data directory, or no backup of it."""
    instance = _instance(source)
    if (target / "lock").exists() or (target.exists() and not (target / PATH).exists() and any(target.iterdir())):
        raise CannotStart(f"{target} is neither empty nor a backup")
    if (target / PATH).exists() and _instance(target) != instance:
        raise CannotStart(f"{target} is a backup of another instance; each needs a directory of its own")
    target.mkdir(parents=True, exist_ok=True)
    part = target / (PATH + PART)
    part.unlink(missing_ok=True)
    _copy_catalog(source / PATH, part)
    known, new, missing = _contents(part), 0, []
    for content in known:
        place = target / content_path(content.digest)
        if not _is_there(source / content_path(content.digest), place, content):
            if _bring(source / content_path(content.digest), place, copy, content):
                new += 1
            else:
                missing.append(content.digest)
    _leave_out(part, missing)
    _put(part, target / PATH)
    kept = {content.digest for content in known} - set(missing)
    for place in _files(target):
        if f"{place.parent.parent.name}:{place.name}" not in kept:
            place.unlink()
    sizes = sum(content.size for content in known if content.digest in kept)
    return Done(len(kept), sizes, new, missing)


def restore(source: Path, data: Path) -> Done:
    """Make a data directory of a backup, with every content checked. Goes on where one was broken off."""
    if not (source / PATH).is_file():
        raise CannotStart(f"{source} is no backup: it has no {PATH}")
    if data.exists() and any(data.iterdir()) and not (data / RESTORING).exists():
        raise CannotStart(f"{data} is not empty")
    data.mkdir(parents=True, exist_ok=True)
    (data / RESTORING).touch()
    part = data / (PATH + PART)
    part.unlink(missing_ok=True)
    _copy_catalog(source / PATH, part)
    known, new, missing = _contents(part), 0, []
    for content in known:
        place = data / content_path(content.digest)
        if not _is_right(place, content):
            place.unlink(missing_ok=True)
            if _is_right(source / content_path(content.digest), content) and _bring(
                source / content_path(content.digest), place, True, content
            ):
                new += 1
            else:
                missing.append(content.digest)
    _leave_out(part, missing)
    _rename(part)
    _put(part, data / PATH)
    (data / RESTORING).unlink()
    return Done(len(known) - len(missing), sum(c.size for c in known if c.digest not in set(missing)), new, missing)


def _instance(data: Path) -> str:
    """Whose catalog is in a directory."""
    catalog = open_read_only(data)
    try:
        row: Any = catalog.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        return str(row[0]) if row else ""
    except apsw.Error as error:
        raise CannotStart(f"the catalog in {data} cannot be read: {error}") from None
    finally:
        catalog.close()


def _is_there(source: Path, place: Path, content: Content) -> bool:
    """Whether a backup has a content. What the instance has mended since is brought again."""
    if _size(place) != content.size:
        return False
    try:
        return source.stat().st_mtime_ns <= place.stat().st_mtime_ns
    except FileNotFoundError:
        return True


def _copy_catalog(source: Path, target: Path) -> None:
    """As of one moment: the whole in one step, which in WAL mode keeps no writer waiting."""
    try:
        reading = apsw.Connection(f"{source.absolute().as_uri()}?mode=ro", flags=READ_ONLY)
        (version,) = reading.execute("PRAGMA user_version").fetchone()  # type: ignore[misc]
        if version > schema.VERSION:
            raise CannotStart(f"{source} was made by a newer version of Concord")
        writing = apsw.Connection(str(target))
        with writing.backup("main", reading, "main") as step:
            step.step(-1)
        writing.pragma("journal_mode", "delete")
        schema.migrate(writing)
        writing.close()
        reading.close()
    except apsw.Error as error:
        raise CannotStart(f"the catalog {source} cannot be read: {error}") from None


def _contents(catalog: Path) -> list[Content]:
    connection = apsw.Connection(str(catalog))
    rows: list[Any] = connection.execute("SELECT digest, size FROM content ORDER BY digest").fetchall()
    connection.close()
    wrong = [digest for digest, _ in rows if not is_digest(digest)]
    if wrong:
        raise CannotStart(f"the catalog names content that is none: {wrong[0][:100]!r}")  # files are named by these
    return [Content(Digest(digest), size) for digest, size in rows]


def _leave_out(catalog: Path, missing: list[Digest]) -> None:
    connection = apsw.Connection(str(catalog))
    with connection:
        connection.executemany("DELETE FROM content WHERE digest = ?", ((digest,) for digest in missing))
    connection.close()


def _rename(catalog: Path) -> None:
    connection = apsw.Connection(str(catalog))
    with connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'instance'", (secrets.token_hex(16),))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'secret'", (secrets.token_bytes(32),))
        for table in ("uploads", "ended_uploads", "reached"):
            connection.execute(f"DELETE FROM {table}")
    connection.close()


def _put(part: Path, place: Path) -> None:
    """Have a catalog take its place, durably, and with nothing of the one before."""
    _sync(part)
    for suffix in ("-wal", "-shm"):
        place.with_name(place.name + suffix).unlink(missing_ok=True)
    part.replace(place)
    _sync(place.parent)


def _bring(source: Path, place: Path, copy: bool, content: Content) -> bool:
    """Link or copy a content file, durably. False when it is not there, or not whole."""
    if _size(source) != content.size:
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + PART)
    part.unlink(missing_ok=True)
    try:
        _link_or_copy(source, part, copy)
    except FileNotFoundError:
        return False  # collected meanwhile
    if part.stat().st_nlink == 1 and not _is_right(part, content):  # what is linked costs nothing, and is not read
        part.unlink()
        return False
    part.replace(place)
    _sync(place.parent)
    return True


def _link_or_copy(source: Path, part: Path, copy: bool) -> None:
    if not copy:
        try:
            return os.link(source, part)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
    shutil.copyfile(source, part)
    _sync(part)


def _is_right(place: Path, content: Content) -> bool:
    """Whether a file has the bytes of its digest."""
    if _size(place) != content.size:
        return False
    hashed = hashlib.new(algorithm_of(content.digest))
    with place.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            hashed.update(piece)
    return content.digest.endswith(f":{hashed.hexdigest()}")


def _files(directory: Path) -> Iterator[Path]:
    """The content files of a directory, and parts of such."""
    for algorithm in ALGORITHMS:
        yield from sorted((directory / "blobs" / algorithm).glob("??/*"))


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

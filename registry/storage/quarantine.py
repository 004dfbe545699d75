"""Quarantine: corrupt content files, moved out of the way and kept for repairs.

    quarantine/<number>-<digest>    the newest has the highest number; the newest 16 files, of 1 GiB together, are kept

Content is quarantined only when a second check finds it corrupt too, under the lock under which files come to their
place: it may have been pushed again since the first check. The row is dropped before the file is moved, so that no row
is ever without a file.
"""

from functools import partial

from registry.catalog.content import ContentRow, drop_content, find_content
from registry.catalog.database import Database
from registry.oci.names import Digest
from registry.storage.checked import Corrupt, VerifiedFile
from registry.storage.checks import CHECK_SPAN_BYTES
from registry.storage.jobs import in_executor
from registry.storage.store import QUARANTINE, BlobStore, content_path
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import GIB

log = EventLog("concord.quarantine")

MAX_FILES = 16
MAX_BYTES = GIB


class Quarantined:
    """Content that was quarantined, and an open file of what is left of it, which the owner of this must close."""

    def __init__(self, row: ContentRow, quarantined_copy: VerifiedFile | None, path: str | None) -> None:
        self.row = row
        self.quarantined_copy = quarantined_copy
        self.path = path
        """The present path of the file; None where there was none, or it could not be moved."""


class Quarantine:
    """The quarantine of one data directory."""

    def __init__(self, store: BlobStore, database: Database) -> None:
        self._store = store
        self._database = database
        self.found = 0
        """The number of contents found corrupt since the start."""

    async def add(self, digest: Digest, corrupt: Corrupt) -> Quarantined | None:
        """Quarantine content. Return None when it is intact after all, or quarantined already.

        Raises StorageFailed when the catalog cannot be written; the content counts as missing all the same.
        """
        async with self._store.changing(digest):
            row = find_content(self._database, digest)
            if row is None:
                self._store.pending_quarantine.pop(digest, None)
                return None
            try:
                quarantined_copy = await in_executor(partial(self._check_again, row, corrupt.offset))
            except Corrupt as gone:
                return await self._move_aside(row, None, gone)
            if quarantined_copy is None:
                self._store.pending_quarantine.pop(digest, None)
                return None
            return await self._move_aside(row, quarantined_copy, corrupt)

    def _check_again(self, row: ContentRow, offset: int) -> VerifiedFile | None:
        """Return the open file of corrupt content, None if it is intact. Raises Corrupt when there is no file."""
        checked = VerifiedFile(self._store.open(row.digest), row)
        try:
            checked.check_size()
            if row.size:
                checked.span(min(offset, row.size - 1) // CHECK_SPAN_BYTES * CHECK_SPAN_BYTES)
        except Corrupt:
            return checked
        checked.close()
        return None

    async def _move_aside(
        self, row: ContentRow, quarantined_copy: VerifiedFile | None, corrupt: Corrupt
    ) -> Quarantined:
        if row.digest not in self._store.pending_quarantine:
            self.found += 1
            log.error(
                LogEvent.BLOB_CORRUPT,
                "%(digest)s is corrupt, %(problem)s; it is quarantined",
                digest=row.digest,
                problem=corrupt,
            )
        self._store.pending_quarantine[row.digest] = corrupt.offset
        try:
            await self._database.write(lambda tx: drop_content(tx, row.digest))
        except BaseException:
            if quarantined_copy is not None:
                quarantined_copy.close()
            raise
        self._store.pending_quarantine.pop(row.digest, None)
        path = await in_executor(partial(self._move, row.digest)) if quarantined_copy is not None else None
        return Quarantined(row, quarantined_copy, path)

    def _move(self, digest: Digest) -> str | None:
        """Failing here does no harm: a file without a row is not content."""
        disk = self._store.disk
        try:
            names = disk.names(QUARANTINE)
            number = int(names[-1].partition("-")[0]) + 1 if names else 1
            path = f"{QUARANTINE}/{number:08}-{digest.replace(':', '-')}"
            disk.rename(content_path(digest), path)
            self._trim()
            disk.sync_directory(QUARANTINE)
        except (OSError, ValueError) as error:
            log.error(
                LogEvent.QUARANTINE_FAILED,
                "the file of %(digest)s could not be quarantined: %(error)s",
                digest=digest,
                error=error,
            )
            return None
        return path

    def _trim(self) -> None:
        """Remove the oldest files that are too many, or too much."""
        disk, total = self._store.disk, 0
        for place, name in enumerate(reversed(disk.names(QUARANTINE))):
            path = f"{QUARANTINE}/{name}"
            file = disk.open(path)
            total += file.size()
            file.close()
            if place >= MAX_FILES or total > MAX_BYTES:
                disk.remove(path)

"""A mark beside the content that records how many contents the catalog has had.

A catalog that was restored from a copy, or has lost its write-ahead log, is older than the content beside it, and
cannot detect that by itself. So the catalog counts the contents that were added to it, and a file that no copy of the
catalog contains keeps the highest count. A catalog whose count is lower is an older one. Once that is detected, both
start a new series of counts with a random name: a later copy of the first series may have a higher count and still lack
content.

A count is appended after its commit and made durable only at the next start: a process that is killed loses nothing of
it, and after a power cut it lacks the last seconds. If it lacks counts, unknown files may be removed that should be
kept; no wrong content is served.
"""

import asyncio
from functools import partial
from typing import NamedTuple

from registry.catalog.content import CONTENTS_ADDED
from registry.catalog.database import Database, Transaction
from registry.errors import StorageFailed
from registry.ports import Disk
from registry.storage.jobs import in_executor
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.request_ids import without_request

log = EventLog("concord.leftovers")

FILE = "content.mark"
MAX_LINES = 1000
"""Number of lines after which the file is written anew, at 50 KB."""
SERIES = "content line"
"""Key of the catalog for the series that it belongs to."""
_SET = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"


class StoredMark(NamedTuple):
    """The mark as the file has it: a series of counts, and how many contents were added in it."""

    series: str
    added: int


class ContentMark:
    """The mark of one data directory."""

    def __init__(self, disk: Disk, database: Database) -> None:
        self._disk, self._database = disk, database
        self._series = ""
        self._added = self._written = 0
        self._appended = 0
        self._writing: asyncio.Task[None] | None = None

    async def fits(self) -> bool:
        """Return whether the catalog is as new as the mark says. Raises StorageFailed."""
        stored, series = await in_executor(self._read), self._catalog_series()
        if stored is None or series is None:
            return stored is None and series is None  # neither, before the first start, and where a backup was restored
        return series == stored.series and self._count() >= stored.added

    async def begin(self, key: str, is_set: bool, in_series: bool) -> None:
        """Continue the catalog's series of counts where `in_series` is true, else start another. Set or remove a key of
        the catalog in the same step. Raises StorageFailed."""
        series = self._catalog_series() if in_series else None
        if series is None:
            self._series = self._database.row("SELECT LOWER(HEX(RANDOMBLOB(16)))")[0]
            if is_set:  # the file first: a key that is set has to find its mark
                await self._write_anew()
            await self._database.write(partial(_set, self._series, key, is_set))
        else:
            self._series = series
        try:
            await self._write_anew()
        except StorageFailed as error:  # an instance on a full disk starts all the same
            log.warning(
                LogEvent.CONTENT_MARK_WRITE_FAILED,
                "how far the catalog has come could not be noted: %(error)s",
                error=error,
            )

    async def settle(self) -> None:
        """Wait until what was counted is written."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write_anew(self) -> None:
        self._added = self._written = self._count()
        await in_executor(partial(self._replace, self._added))

    def _catalog_series(self) -> str | None:
        row = self._database.row("SELECT value FROM meta WHERE key = ?", (SERIES,))
        return row[0] if row is not None else None

    def _count(self) -> int:
        row = self._database.row("SELECT value FROM meta WHERE key = ?", (CONTENTS_ADDED,))
        return row[0] if row is not None else 0

    def note_added(self) -> None:
        """Note that contents were added, durably."""
        if not self._series:
            return  # this process does not keep the mark
        self._added = self._count()
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), context=without_request())

    async def _write(self) -> None:
        while self._written < self._added:
            added = self._added
            try:
                await in_executor(partial(self._append, added))
            except StorageFailed as error:
                log.warning(
                    LogEvent.CONTENT_MARK_WRITE_FAILED,
                    "how far the catalog has come could not be noted: %(error)s",
                    error=error,
                )
                return
            self._written = added

    def _append(self, added: int) -> None:
        if self._appended >= MAX_LINES:
            self._replace(added)
            return
        file = self._disk.open(FILE, append=True)
        try:
            file.append([self._encoded(added)])
        finally:
            file.close()
        self._appended += 1

    def _replace(self, added: int) -> None:
        part = f"{FILE}.part"
        if part in self._disk.names("."):
            self._disk.remove(part)
        file = self._disk.create(part)
        try:
            file.append([self._encoded(added)])
            file.sync()
        finally:
            file.close()
        self._disk.rename(part, FILE)
        self._disk.sync_directory(".")
        self._appended = 0

    def _encoded(self, added: int) -> bytes:
        return f"{self._series} {added}\n".encode()

    def _read(self) -> StoredMark | None:
        try:
            file = self._disk.open(FILE)
        except FileNotFoundError:
            return None
        try:
            data = file.pread(0, file.size())
        finally:
            file.close()
        lines = [words for one in data.split(b"\n") if len(words := one.split()) == 2 and words[1].isdigit()]
        # One line at least was durable before the file had its name; others may be torn by a power cut.
        return StoredMark(lines[0][0].decode(), max(int(added) for _, added in lines)) if lines else StoredMark("", 0)


def _set(series: str, key: str, is_set: bool, tx: Transaction) -> None:
    tx.execute(_SET, (SERIES, series))
    if is_set:
        tx.execute(_SET, (key, 1))
    else:
        tx.execute("DELETE FROM meta WHERE key = ?", (key,))

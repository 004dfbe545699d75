"""Content files without a row in the catalog: what a process that was killed leaves behind.

A file is moved to its place before its row is committed, and removed after its row is deleted. A kill in between leaves
a file that nothing counts, serves or collects. A sweep compares the files with the rows and removes such files.

It is safe beside everything else. Files come and go under `BlobStore.changing` alone, which the sweep holds while it
looks once more, in a write of its own: that runs after every commit that a request, cancelled since, has left in the
queue. Workers read by rows. What a failed commit leaves is not removed by this process, since its row may be found by
the next start.

A catalog that is new in a directory with content, because the old one was lost, knows none of the files; they are what
`concord rebuild` takes in. A catalog that was restored from a copy does not know the newest files, see `content_mark`.
So files are removed only where the catalog has known all of them from its beginning, and never many at once.
"""

import asyncio
from functools import partial
from typing import NamedTuple

import apsw

from registry.catalog.database import Database, Transaction
from registry.oci.names import ALGORITHMS, Digest, is_digest
from registry.storage.content_mark import ContentMark
from registry.storage.jobs import in_executor
from registry.storage.store import BlobStore, content_path
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.leftovers")

DIRECTORIES_AT_ONCE = 16
"""Listed by one job: of a million files some sixty thousand names, a few tens of milliseconds."""
FEW = 1000
"""A sweep removes up to this many files in any case, and more only where there is more content than that."""
MAX_FOUND = 100_000
_KNOWN = "knows all content files"
_ROWS = "SELECT digest FROM content WHERE digest >= ? AND digest < ?"


class Swept(NamedTuple):
    """The number and the size of the files that a sweep has removed."""

    files: int
    bytes: int


class Leftovers:
    """Sweeps one data directory."""

    def __init__(self, store: BlobStore, database: Database) -> None:
        self._store = store
        self._database = database
        self.mark = ContentMark(store.disk, database)
        self._lock = asyncio.Lock()
        self._is_doubtful = False
        """True when a commit has failed, so that rows may come back."""
        self.removed = self.removed_bytes = 0
        database.on_failed_commit.append(self._doubt)

    def _doubt(self) -> None:
        self._is_doubtful = True

    async def begin(self) -> None:
        """Record on the catalog whether it knows all files there are. Call before the catalog is started. Raises
        StorageFailed."""
        is_new = self._database.row("SELECT 1 FROM meta WHERE key = 'instance'") is None
        if is_new:
            knows_all = await self._is_without_files()
        elif knows_all := self._knows_all():
            knows_all = await self.mark.fits()
            if not knows_all:
                log.warning(
                    LogEvent.CATALOG_ROLLBACK_DETECTED,
                    "the catalog is older than the content beside it, or its mark is gone; content files that it does "
                    "not know are not used and not removed; concord rebuild takes them in if the catalog is moved away",
                )
        in_series = not is_new and knows_all == self._knows_all()
        await self.mark.begin(_KNOWN, knows_all, in_series)

    def _knows_all(self) -> bool:
        return self._database.row("SELECT 1 FROM meta WHERE key = ?", (_KNOWN,)) is not None

    async def _is_without_files(self) -> bool:
        for algorithm in ALGORITHMS:
            for first in range(0, 256, DIRECTORIES_AT_ONCE):
                if await in_executor(partial(self._list, algorithm, first)):
                    log.warning(
                        LogEvent.CATALOG_LOSS_DETECTED,
                        "the catalog is new and there are content files that it does not know; "
                        "they are not used and not removed; concord rebuild takes them in",
                    )
                    return False
        return True

    async def sweep(self) -> Swept:
        """Remove files without rows. Raises StorageFailed."""
        if not self._knows_all():
            return Swept(0, 0)
        async with self._lock:
            found = await self._find()
            count = self._database.row("SELECT COUNT(*) FROM content")[0] if len(found) > FEW else 0
            if len(found) > max(FEW, count):
                log.error(
                    LogEvent.ORPHAN_FILES_KEPT,
                    "%(files)d content files are not in the catalog, more than are; none is removed",
                    files=len(found),
                )
                return Swept(0, 0)
            sizes = [size for digest in found if (size := await self._remove(digest)) is not None]
        if sizes:
            self.removed += len(sizes)
            self.removed_bytes += sum(sizes)
            log.warning(
                LogEvent.ORPHAN_FILES_REMOVED,
                "%(files)d files of %(bytes)d bytes were removed that a killed process had left",
                files=len(sizes),
                bytes=sum(sizes),
            )
        return Swept(len(sizes), sum(sizes))

    async def _find(self) -> list[Digest]:
        """Files that had no row a moment ago."""
        found: list[Digest] = []
        for algorithm in ALGORITHMS:
            for first in range(0, 256, DIRECTORIES_AT_ONCE):
                files = await in_executor(partial(self._list, algorithm, first))
                if files and len(found) < MAX_FOUND:
                    found += sorted(files - await self._database.read_aside(partial(_rows, algorithm, first)))
        return found

    def _list(self, algorithm: str, first: int) -> set[Digest]:
        """The content files in some directories, and nothing else that may lie there. Blocks."""
        found = set()
        for number in range(first, first + DIRECTORIES_AT_ONCE):
            prefix = f"{number:02x}"
            for name in self._store.disk.names(f"blobs/{algorithm}/{prefix}"):
                if name.startswith(prefix) and is_digest(f"{algorithm}:{name}"):
                    found.add(Digest(f"{algorithm}:{name}"))
        return found

    async def _remove(self, digest: Digest) -> int | None:
        """Remove a file if it still has no row. Return its size, None where it stays."""
        async with self._store.changing(digest):
            if self._is_doubtful or await self._database.write(partial(_is_held, digest)):
                return None
            return await in_executor(partial(self._unlink, digest))

    def _unlink(self, digest: Digest) -> int | None:
        disk, path = self._store.disk, content_path(digest)
        try:
            file = disk.open(path)
            size = file.size()
            file.close()
            disk.remove(path)
        except FileNotFoundError:
            return None
        return size


def _is_held(digest: Digest, tx: Transaction) -> bool:
    return tx.row("SELECT 1 FROM content WHERE digest = ?", (digest,)) is not None


def _rows(algorithm: str, first: int, connection: apsw.Connection) -> set[Digest]:
    last = first + DIRECTORIES_AT_ONCE - 1
    bounds = f"{algorithm}:{first:02x}", f"{algorithm}:{last:02x}g"  # g sorts after every hexadecimal digit
    return {Digest(str(digest)) for (digest,) in connection.execute(_ROWS, bounds)}

"""Content files: where they are, how they get there, and reading them.

    blobs/<algorithm>/<2 hex>/<hex>    immutable content, under the digest it has
    uploads/<id>                       uploads under way
    fetches/<name>                     content being fetched from peers
    quarantine/<number>-<digest>       corrupt files, see `storage.quarantine`

A content file is written elsewhere in the data directory, made durable, renamed to its place, and its directory made
durable, before the catalog says that it is here. Only what the catalog says counts: a file without a row is a leftover.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator
from functools import partial
from weakref import WeakValueDictionary

from registry.catalog.content import ContentRow, find_content, held_size
from registry.catalog.database import Reads
from registry.errors import StorageFailed
from registry.oci.names import ALGORITHMS, Digest
from registry.ports import Disk, DiskFile
from registry.storage.checked import Corrupt
from registry.storage.jobs import in_executor
from registry.units import KIB

UPLOADS = "uploads"
FETCHES = "fetches"
QUARANTINE = "quarantine"
READ_BYTES = 512 * KIB  # measured: smaller ones cost calls, larger ones are mapped and unmapped each time


def content_path(digest: Digest) -> str:
    return f"{_directory(digest)}/{digest.partition(':')[2]}"


def _directory(digest: Digest) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded[:2]}"


class BlobStore:
    """The content files of one data directory."""

    def __init__(self, disk: Disk, database: Reads) -> None:
        self.disk = disk
        self._database = database
        self._changing: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        self.pending_quarantine: dict[Digest, int] = {}
        """Corrupt content whose row could not be dropped yet, with the offset of a bad byte. It counts as missing."""

    def prepare(self) -> None:
        """Create the directories, and remove what transfers of an earlier start left behind."""
        for algorithm in ALGORITHMS:
            for first in range(256):
                self.disk.make_directory(f"blobs/{algorithm}/{first:02x}")
            self.disk.sync_directory(f"blobs/{algorithm}")
        for name in (UPLOADS, FETCHES, QUARANTINE):
            self.disk.make_directory(name)
        for name in ("blobs", "."):
            self.disk.sync_directory(name)
        for name in self.disk.names(FETCHES):
            self.disk.remove(f"{FETCHES}/{name}")

    def held_size(self, digest: Digest) -> int | None:
        """The size of content that is on this disk, or None."""
        return None if digest in self.pending_quarantine else held_size(self._database, digest)

    def row(self, digest: Digest) -> ContentRow | None:
        """Return the row of content that is on this disk, or None."""
        return None if digest in self.pending_quarantine else find_content(self._database, digest)

    def mark_suspect(self, digest: Digest) -> None:
        """Mark content as suspect: it counts as missing until it has been checked."""
        self.pending_quarantine.setdefault(digest, 0)

    def open(self, digest: Digest) -> DiskFile:
        """Open a content file. Raises Corrupt when it is missing or unreadable, OSError for errors that may pass."""
        try:
            return self.disk.open(content_path(digest))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EIO):
                raise Corrupt(
                    0, "the file is missing" if error.errno == errno.ENOENT else "it cannot be opened"
                ) from None
            raise

    def changing(self, digest: Digest) -> asyncio.Lock:
        """Hold the lock under which a content's file and its row change together, so that of two such changes each sees
        the other as a whole."""
        lock = self._changing.get(digest)
        if lock is None:
            lock = self._changing[digest] = asyncio.Lock()
        return lock

    async def publish(self, path: str, digest: Digest) -> None:
        """Move a file that is complete, verified and durable to its place. Raises StorageFailed."""

        def move() -> None:
            self.disk.rename(path, content_path(digest))
            self.disk.sync_directory(_directory(digest))

        await in_executor(move)
        self.pending_quarantine.pop(digest, None)

    async def sync_name(self, digest: Digest) -> None:
        """Make the name of content in its place durable, which `publish` does too. Raises StorageFailed."""
        await in_executor(partial(self.disk.sync_directory, _directory(digest)))

    async def remove(self, path: str) -> None:
        """Remove a file that is not needed any more. A file that is gone already is no error."""

        def remove() -> None:
            try:
                self.disk.remove(path)
            except FileNotFoundError:
                pass

        await in_executor(remove)

    async def read(self, file: DiskFile, offset: int, size: int) -> AsyncGenerator[bytes | bytearray, None]:
        """`size` bytes of a file from `offset`, in pieces; the file is closed at the end. Raises Corrupt.

        What the page cache holds is read at once, since a hop to a thread costs more than the read.
        """
        try:
            end = offset + size
            while offset < end:
                wanted = min(READ_BYTES, end - offset)
                piece = file.pread_nowait(offset, wanted)
                if piece is None:
                    piece = await in_executor(partial(file.pread, offset, wanted))
                if not piece:
                    raise Corrupt(offset, "the file is too short")
                yield piece
                offset += len(piece)
        except (StorageFailed, OSError) as error:
            raise Corrupt(offset, f"it cannot be read: {error}") from None
        finally:
            file.close()

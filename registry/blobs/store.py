"""Content files: where they are, how they get there, and reading them.

    blobs/<algorithm>/<2 hex>/<hex>    immutable content, under the digest it has
    uploads/<id>                       uploads under way
    fetches/<name>                     content being fetched from peers

A content file is written elsewhere in the data directory, made durable, renamed to its place, and its directory made
durable, before the catalog says that it is here. Only what the catalog says counts: a file without a row is a leftover.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from registry.blobs.jobs import in_executor
from registry.catalog.content import held_size
from registry.catalog.database import Database
from registry.names import ALGORITHMS, Digest
from registry.seams import Disk, DiskFile

UPLOADS = "uploads"
FETCHES = "fetches"
READ_BYTES = 512 * 1024  # measured: smaller ones cost calls, larger ones are mapped and unmapped each time


def content_path(digest: Digest) -> str:
    return f"{_directory(digest)}/{digest.partition(':')[2]}"


def _directory(digest: Digest) -> str:
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded[:2]}"


class BlobStore:
    """The content files of one data directory."""

    def __init__(self, disk: Disk, database: Database) -> None:
        self.disk = disk
        self._database = database
        self._alone: dict[Digest, tuple[asyncio.Lock, int]] = {}

    def prepare(self) -> None:
        """Create the directories, and remove what transfers of an earlier start left behind."""
        for algorithm in ALGORITHMS:
            for first in range(256):
                self.disk.make_directory(f"blobs/{algorithm}/{first:02x}")
            self.disk.sync_directory(f"blobs/{algorithm}")
        for name in (UPLOADS, FETCHES):
            self.disk.make_directory(name)
        for name in ("blobs", "."):
            self.disk.sync_directory(name)
        for name in self.disk.names(FETCHES):
            self.disk.remove(f"{FETCHES}/{name}")

    def held_size(self, digest: Digest) -> int | None:
        """The size of content that is on this disk, or None."""
        return held_size(self._database, digest)

    def open(self, digest: Digest) -> DiskFile:
        return self.disk.open(content_path(digest))

    @asynccontextmanager
    async def alone_with(self, digest: Digest) -> AsyncIterator[None]:
        """Publishing a content and noting it, or forgetting and removing it, while nobody else does either."""
        lock, users = self._alone.get(digest, (asyncio.Lock(), 0))
        self._alone[digest] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._alone[digest]
            if users > 1:
                self._alone[digest] = lock, users - 1
            else:
                del self._alone[digest]

    async def publish(self, path: str, digest: Digest) -> None:
        """Move a file that is complete, verified and durable to its place. Raises StorageFailed."""

        def move() -> None:
            self.disk.rename(path, content_path(digest))
            self.disk.sync_directory(_directory(digest))

        await in_executor(move)

    async def remove(self, path: str) -> None:
        """Remove a file that nobody needs any more. It may be gone already."""

        def remove() -> None:
            try:
                self.disk.remove(path)
            except FileNotFoundError:
                pass

        await in_executor(remove)

    async def read(self, file: DiskFile, offset: int, size: int) -> AsyncIterator[bytes | bytearray]:
        """`size` bytes of a file from `offset`, in pieces; the file is closed at the end.

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
                    raise OSError(f"a content file ends at {offset} of {end} bytes")
                yield piece
                offset += len(piece)
        finally:
            file.close()

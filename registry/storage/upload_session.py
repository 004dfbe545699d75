"""One upload in memory: its file, and the hashes of its bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry.catalog.content import UploadRow
from registry.errors import BlobUploadUnknown, StorageFailed, TooManyUploads
from registry.event_loop.now import now_s
from registry.oci.names import Digest, Repository
from registry.ports import DiskFile
from registry.storage.checks import ContentHashes
from registry.storage.ingest import Ingest
from registry.storage.jobs import in_executor
from registry.storage.store import UPLOADS, BlobStore
from registry.storage.upload_hashes import Hasher, KeptHashes, OtherHashes
from registry.storage.upload_memory import UploadMemory


class Preempted(TooManyUploads):
    """The request was too slow, and its upload was preempted."""


class UploadSession:
    """An upload with a request under way, or a recent one. Its file is opened when it is first needed."""

    def __init__(
        self,
        store: BlobStore,
        hasher: Hasher,
        kept: KeptHashes,
        memory: UploadMemory,
        upload: str,
        repository: Repository,
        row: UploadRow | None,
    ) -> None:
        self.id = upload
        self.path = f"{UPLOADS}/{upload}"
        self.repository = row.repository if row else repository
        self.lock = asyncio.Lock()
        self._turns = 0
        self.used_ms = 0
        self._store = store
        self._hasher = hasher
        self._kept = kept
        self._memory = memory
        self._others = OtherHashes()
        self._row = row
        self.is_named = row is not None
        """True when the file's name is durable."""
        self.durable = row.size if row else None
        """The number of acknowledged bytes, None while there is no row."""
        self._ingest: Ingest | None = None
        self._receiving: asyncio.Timeout | None = None
        self._is_preempted = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the lock for a request."""
        self._turns += 1
        try:
            async with self.lock:
                yield
        finally:
            self._turns -= 1

    @property
    def is_at_work(self) -> bool:
        """Return whether a request holds the turn or waits for it. The lock alone does not tell: an unlocked lock may
        be promised to a waiting request."""
        return self._turns > 0 or self.lock.locked()

    @asynccontextmanager
    async def preemptible(self) -> AsyncIterator[None]:
        """Receive a body inside. Raises Preempted where `preempt` is called meanwhile."""
        try:
            async with asyncio.timeout(None) as self._receiving:
                yield
        except TimeoutError:
            if not self._is_preempted:
                raise
            message = "the upload came slowly, and others needed its place; push again"
            raise Preempted(message, breaks_off=True) from None
        finally:
            self._receiving, self._is_preempted = None, False

    @property
    def is_preemptible(self) -> bool:
        """Return whether a body is being received."""
        return self._receiving is not None

    def preempt(self) -> None:
        """Cancel the request that receives a body."""
        assert self._receiving is not None, "only a body that is on its way is broken off"
        self._is_preempted = True
        self._receiving.reschedule(now_s())

    @property
    def is_open(self) -> bool:
        return self._ingest is not None

    @property
    def size(self) -> int:
        if self._ingest is not None:
            return self._ingest.size
        return self._row.size if self._row else 0

    @property
    def is_empty(self) -> bool:
        """Return whether it has no bytes and never had a durable one."""
        return self.durable is None and self.size == 0

    def check_repository(self, repository: Repository) -> None:
        """Raise BlobUploadUnknown for any repository but its own."""
        if self.repository != repository:
            raise BlobUploadUnknown("there is no such upload in this repository")

    async def open(self) -> Ingest:
        """The file, to add to. After a restart its content is read once more, to go on hashing."""
        if self._ingest is None:
            file = await in_executor(self._open_file)
            try:
                self._ingest = Ingest(self._store.disk, file, await self._checks(file), memory=self._memory)
            except BaseException:
                file.close()
                raise
        return self._ingest

    def _open_file(self) -> DiskFile:
        """Open the file with what was acknowledged in it and no more. Blocks."""
        disk, row = self._store.disk, self._row
        if row is None:
            try:
                return disk.create(self.path)
            except FileExistsError:  # bytes of which nothing was acknowledged
                file = disk.open(self.path, append=True)
                file.truncate(0)
                return file
        file = disk.open(self.path, append=True)
        if file.size() < row.size:
            file.close()
            raise OSError("an upload's file is shorter than what was acknowledged")
        file.truncate(row.size)
        return file

    async def _checks(self, file: DiskFile) -> ContentHashes:
        """The hashes of what was acknowledged. Raises StorageFailed where the file holds something else."""
        kept = self._kept.take(self.id)
        if self._row is None:
            return ContentHashes()
        if kept is not None and _is_of(kept[0], self._row):
            checks, self._others = kept
            return checks
        checks = ContentHashes()
        await self._hasher.hash(checks.update, file, 0, self._row.size)
        if not _is_of(checks, self._row):
            cause = "an upload's file does not hold what was acknowledged"
            raise StorageFailed("the disk failed", {"cause": cause})
        return checks

    async def digest(self, algorithm: str, before: int) -> Digest:
        """The digest of all bytes, of which `before` were there before this request."""
        ingest = await self.open()
        if algorithm == ingest.checks.algorithm:
            return ingest.checks.digest()
        return await self._others.digest(self._hasher, algorithm, ingest.file, before, ingest.size)

    async def close(self) -> None:
        """Close the file, and keep the hashes of what is durable of it."""
        if self._ingest is not None:
            ingest, self._ingest = self._ingest, None
            await ingest.close()
            if ingest.checks.size == ingest.size == self.durable:
                self._kept.keep(self.id, ingest.checks, self._others)


def _is_of(checks: ContentHashes, row: UploadRow) -> bool:
    return checks.size == row.size and checks.digest() == f"sha256:{row.sha256}"

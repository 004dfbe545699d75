"""One upload in memory: its file, and the hashes of what that holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry.blobs.checks import Checks
from registry.blobs.ingest import Ingest
from registry.blobs.jobs import in_executor
from registry.blobs.store import READ_BYTES, UPLOADS, BlobStore
from registry.catalog.content import UploadRow
from registry.errors import CLOSE, BlobUploadUnknown, TooManyUploads
from registry.names import Repository
from registry.seams import DiskFile


class Preempted(TooManyUploads):
    """The request was too slow, and its upload has given its place to another one."""


class Session:
    """Its file is opened when it is first needed."""

    def __init__(self, store: BlobStore, upload: str, repository: Repository, row: UploadRow | None) -> None:
        self.id = upload
        self.path = f"{UPLOADS}/{upload}"
        self.repository = row.repository if row else repository
        self.lock = asyncio.Lock()
        self.used_ms = 0
        self._store = store
        self._row = row
        self.is_named = row is not None
        """Whether the file's name is durable."""
        self.durable = row.size if row else None
        """How many bytes are acknowledged, None while there is no row."""
        self._ingest: Ingest | None = None
        self._receiving: asyncio.Timeout | None = None
        self._is_preempted = False

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
            raise Preempted(message, headers=CLOSE) from None
        finally:
            self._receiving, self._is_preempted = None, False

    @property
    def is_preemptible(self) -> bool:
        """Whether a body is being received."""
        return self._receiving is not None

    def preempt(self) -> None:
        """Break off the request that receives a body."""
        assert self._receiving is not None, "only a body that is on its way is broken off"
        self._is_preempted = True
        self._receiving.reschedule(asyncio.get_running_loop().time())

    @property
    def is_open(self) -> bool:
        return self._ingest is not None

    @property
    def size(self) -> int:
        if self._ingest is not None:
            return self._ingest.size
        return self._row.size if self._row else 0

    def check_repository(self, repository: Repository) -> None:
        """Raises BlobUploadUnknown for any repository but its own."""
        if self.repository != repository:
            raise BlobUploadUnknown("there is no such upload in this repository")

    async def open(self) -> Ingest:
        """The file, to add to. After a restart its content is read once more, to go on hashing."""
        if self._ingest is None:
            self._ingest = await in_executor(self._prepare)
        return self._ingest

    def _prepare(self) -> Ingest:
        disk, row = self._store.disk, self._row
        if row is None:
            try:
                return Ingest(disk, disk.create(self.path), Checks())
            except FileExistsError:  # bytes of which nothing was acknowledged
                file = disk.open(self.path, append=True)
                file.truncate(0)
                return Ingest(disk, file, Checks())
        file = disk.open(self.path, append=True)
        file.truncate(row.size)
        checks = _checks_of(file, row.size)
        if checks.digest() != f"sha256:{row.sha256}":
            file.close()
            raise OSError("an upload's file does not hold what was acknowledged")
        return Ingest(disk, file, checks)

    async def close(self) -> None:
        if self._ingest is not None:
            ingest, self._ingest = self._ingest, None
            await ingest.close()


def _checks_of(file: DiskFile, size: int) -> Checks:
    checks = Checks()
    while checks.size < size:
        data = file.pread(checks.size, min(READ_BYTES, size - checks.size))
        if not data:
            raise OSError("an upload's file is shorter than what was acknowledged")
        checks.update(data)
    return checks

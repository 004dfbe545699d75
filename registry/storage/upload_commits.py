"""The commits of uploads: what the process that receives an upload has the catalog record.

One process writes the catalog (`runtime.primary`). It may be another one than the process that receives the bytes. So
the commits are an interface of three operations, each of which may be repeated without harm: a process that has lost
its answer sends it again.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from crdt.change import Change
from registry.catalog.catalog import Catalog
from registry.catalog.content import (
    UploadRow,
    add_content,
    end_upload,
    forget_ended_uploads,
    held_size,
    save_upload,
    upload_has_ended,
)
from registry.catalog.database import Transaction
from registry.catalog.repository import link_blob
from registry.errors import BlobUploadUnknown, StorageFailed
from registry.oci.names import Digest, Repository
from registry.ports import Clock
from registry.storage.checks import ContentHashes
from registry.storage.disk_budget import DiskBudget
from registry.storage.jobs import in_executor
from registry.storage.store import UPLOADS, BlobStore, content_path
from registry.units import MIB

Acknowledgement = Callable[[], Awaitable[None]]
"""Awaited once, it returns when a commit may be answered: its site has it (`cluster.replication.acknowledgements`)."""


class FinishedUpload(NamedTuple):
    """An upload whose file is complete, verified against its digest, and durable."""

    id: str
    repository: Repository
    digest: Digest
    size: int
    chunk_digests: bytes
    """The BLAKE3 digests of each MiB, one behind the other."""


class UploadCommits(Protocol):
    """The commits of uploads. Each returns once it is durable, and raises StorageFailed where the disk does not take
    it."""

    async def save(self, upload: UploadRow) -> None:
        """Record how many bytes of an upload are durable."""

    async def publish(self, upload: FinishedUpload) -> Acknowledgement:
        """Move an upload's file to its place, and record the content, the blob's link, and the end of the upload.
        Raises BlobUploadUnknown for an upload that has ended otherwise."""

    async def end(self, upload: str) -> None:
        """Record that an upload has ended without content."""


class CatalogCommits:
    """The commits in the process that writes the catalog."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        clock: Clock,
        budget: DiskBudget,
        acknowledge: Callable[[Change], Awaitable[None]],
    ) -> None:
        """`acknowledge` returns once a committed change may be answered."""
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._budget = budget
        self._acknowledge = acknowledge

    async def save(self, upload: UploadRow) -> None:
        await self._catalog.database.write(lambda tx: save_upload(tx, upload))

    async def publish(self, upload: FinishedUpload) -> Acknowledgement:
        database, now_ms = self._catalog.database, self._clock.now_ms()
        async with self._store.changing(upload.digest):
            is_repeated = upload_has_ended(database, upload.id)
            if is_repeated and held_size(database, upload.digest) is None:
                raise BlobUploadUnknown("this upload was cancelled, or preempted by others")

            def commit(tx: Transaction) -> Change:
                if not is_repeated:
                    add_content(tx, upload.digest, upload.size, upload.chunk_digests, now_ms)
                    end_upload(tx, upload.id, now_ms)
                return link_blob(tx, self._catalog.documents, upload.repository, upload.digest, upload.size, now_ms)

            # Also where the content is here already: what was just verified is good, what is there may be damaged.
            if not is_repeated:
                await self._move(upload)
            change = await database.write(commit)
        if not is_repeated:
            self._budget.on_blob_added(upload.size)
        return lambda: self._acknowledge(change)

    async def _move(self, upload: FinishedUpload) -> None:
        """Move an upload's file to its place, where a process that has died before its commit may have moved it. Raises
        StorageFailed."""
        try:
            await self._store.publish(f"{UPLOADS}/{upload.id}", upload.digest)
        except StorageFailed as error:
            if not isinstance(error.__cause__, FileNotFoundError) or not await self._is_moved(upload):
                raise

    async def _is_moved(self, upload: FinishedUpload) -> bool:
        """Return whether the content in its place is that of this upload, and make its name durable."""

        def is_same() -> bool:
            checks, disk = ContentHashes(), self._store.disk
            try:
                file = disk.open(content_path(upload.digest))
            except FileNotFoundError:
                return False
            try:
                while piece := file.pread(checks.size, MIB):
                    checks.update_parts(piece)
            finally:
                file.close()
            return checks.size == upload.size and checks.per_mib() == upload.chunk_digests

        if await in_executor(is_same):
            await self._store.sync_name(upload.digest)
            return True
        return False

    async def end(self, upload: str) -> None:
        now_ms = self._clock.now_ms()
        await self._catalog.database.write(lambda tx: end_upload(tx, upload, now_ms))

    async def forget_ended(self, before_ms: int) -> None:
        """Forget the names of uploads that ended before that time: their ids have expired."""
        await self._catalog.database.write(lambda tx: forget_ended_uploads(tx, before_ms))

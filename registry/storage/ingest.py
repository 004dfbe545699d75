"""Receiving bytes into a file.

Pieces of about a MiB are hashed and written in the executor while the next one is being received: one piece is under
way, one gathers. A lone upload has each piece hashed twice and written by three threads at once. Where several uploads
are under way, those keep the threads busy by themselves, and a piece is one job. What is written is durable only after
`sync`; the disk begins with that earlier. The last piece is hashed, written and synced in one job.
"""

import asyncio
import errno
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from registry.errors import StorageFailed
from registry.ports import Disk, DiskFile
from registry.storage.checks import ContentHashes
from registry.storage.jobs import in_executor
from registry.storage.upload_memory import UploadMemory
from registry.units import MIB

PIECE_BYTES = MIB
SMALL_BYTES = 4096
"""Parts below this size are joined to larger ones: as a list they would take many times their size."""
SYNCED_AT_ONCE_BYTES = 8 * MIB
RESERVE_BYTES = 32 * MIB
"""Bytes that content leaves free: on a disk that is full to the last byte not even a delete could be recorded."""


class RewindPoint(NamedTuple):
    """A length to which an ingest can be rewound, with the hashes of the bytes up to it."""

    size: int
    checks: ContentHashes


class Ingest:
    """One file being received. Not for concurrent use. After an error it must be dropped or rewound."""

    def __init__(
        self,
        disk: Disk,
        file: DiskFile,
        checks: ContentHashes,
        on_written: Callable[[], None] | None = None,
        memory: UploadMemory | None = None,
    ) -> None:
        """With `on_written`, bytes are written as soon as possible and it is told whenever more can be read back. What
        is not written yet counts in `memory`."""
        self._disk = disk
        self._on_written = on_written
        self._memory = memory
        self.file = file
        self.checks = checks
        self.size = checks.size
        """Bytes received, of which the last ones may not be written yet."""
        self._parts: list[bytes | bytearray | memoryview] = []
        self._gathered = 0
        self._job: asyncio.Future[None] | None = None
        self._written = checks.size
        self._syncing: asyncio.Future[None] | None = None
        """Making durable what was written a while ago: it does not wait for the last byte."""
        self._synced = checks.size

    @property
    def written(self) -> int:
        """Bytes that can be read back, where `on_written` is given."""
        return self._written

    async def write(self, data: bytes | memoryview) -> None:
        """Take in more bytes. Raises StorageFailed, possibly for earlier ones."""
        if len(data) >= SMALL_BYTES:
            self._parts.append(data)
        elif self._parts and isinstance(last := self._parts[-1], bytearray) and len(last) < PIECE_BYTES:
            last += data
        else:
            self._parts.append(bytearray(data))
        self._gathered += len(data)
        self.size += len(data)
        if self._memory is not None:
            self._memory.take(self, len(data))
        idle = self._on_written is not None and (self._job is None or self._job.done())
        if idle or self._gathered >= PIECE_BYTES:
            await self._hand_over()

    def write_out(self) -> None:
        """Begin to write what has gathered, unless something is being written or has failed. Does not wait."""
        if self._parts and (self._job is None or (self._job.done() and self._job.exception() is None)):
            self._begin(self._take(self._gathered_parts()))

    async def flush(self) -> None:
        """Wait until all bytes are hashed and written."""
        if self._parts:
            await self._hand_over()
        await self._settle()

    async def sync(self) -> None:
        """Hash and write what has gathered, and make all bytes durable."""
        await self._settle_sync()
        await self._settle()
        self._begin(self._take(self._gathered_parts(), is_last=True))
        await self._settle()

    def rewind_point(self) -> RewindPoint:
        """Return the point that the file has reached. Only after `flush`."""
        assert not self._parts and self._job is None, "a rewind point is taken after a flush"
        return RewindPoint(self.size, self.checks.copy())

    async def rewind(self, point: RewindPoint) -> None:
        """Go back to a point, and drop everything after it."""
        self._drop_gathered()
        await self._give_up()
        await self._run(lambda: self.file.truncate(point.size))
        self.size, self.checks, self._written = point.size, point.checks.copy(), point.size
        self._synced = min(self._synced, point.size)

    async def close(self) -> None:
        """Close the file, once nothing is under way any more."""
        self._drop_gathered()
        await self._give_up()
        self.file.close()

    def _gathered_parts(self) -> list[bytes | bytearray | memoryview]:
        """Take what has gathered."""
        parts, self._parts, self._gathered = self._parts, [], 0
        return parts

    def _drop_gathered(self) -> None:
        dropped_bytes, self._parts, self._gathered = self._gathered, [], 0
        self._release(dropped_bytes)

    def _release(self, size_bytes: int) -> None:
        if self._memory is not None and size_bytes:
            self._memory.release(self, size_bytes)

    async def _hand_over(self) -> None:
        await self._settle()
        if self._written - self._synced >= SYNCED_AT_ONCE_BYTES and (self._syncing is None or self._syncing.done()):
            await self._settle_sync()
            self._syncing, self._synced = asyncio.ensure_future(in_executor(self.file.sync)), self._written
        self._begin(self._take(self._gathered_parts()))

    async def _run(self, job: Callable[[], None]) -> None:
        await self._settle()
        self._begin(in_executor(job))
        await self._settle()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._job = asyncio.ensure_future(work)
        if self._on_written is not None:
            self._job.add_done_callback(lambda _: self._notify_written())

    def _notify_written(self) -> None:
        if self._on_written is not None:
            self._on_written()

    async def _settle(self) -> None:
        """Wait for the job under way, and one that has followed it meanwhile. It is shielded: a cancelled job would go
        on in its thread, on a closed file."""
        while (job := self._job) is not None:
            try:
                await asyncio.shield(job)
            finally:
                if job.done() and self._job is job:
                    self._job = None

    async def _settle_sync(self) -> None:
        """Wait until nothing is being made durable any more. Raises StorageFailed where that has failed."""
        if self._syncing is not None:
            try:
                await asyncio.shield(self._syncing)
            finally:
                if self._syncing.done():
                    self._syncing = None

    async def _give_up(self) -> None:
        for settle in (self._settle, self._settle_sync):
            try:
                await settle()
            except StorageFailed:
                pass  # the write has raised it, or the bytes are about to be cut off

    async def _take(self, parts: list[bytes | bytearray | memoryview], is_last: bool = False) -> None:
        """Hash and write a piece, and sync the file after the last one. What could not be written counts as not hashed
        either."""
        before, checks = self.checks.copy(), self.checks

        def in_one_job() -> None:
            _each(parts, checks.update)
            self._store(parts)
            if is_last:
                self.file.sync()

        at_once = (partial(_each, parts, checks.update_digest), partial(_each, parts, checks.update_parts))
        is_lone = self._memory is None or not self._memory.is_shared
        jobs = (*at_once, partial(self._store, parts)) if is_lone and not is_last else (in_one_job,)
        try:
            outcomes = await asyncio.gather(*map(in_executor, jobs), return_exceptions=True)
        finally:
            self._release(sum(map(len, parts)))
        if outcomes[-1] is not None:
            self.checks = before
        for failure in outcomes:
            if failure is not None:
                raise failure

    def _store(self, parts: list[bytes | bytearray | memoryview]) -> None:
        if not parts:
            return
        if self._disk.free() < RESERVE_BYTES:
            raise OSError(errno.ENOSPC, "the last part of the disk is kept for the catalog")
        self.file.append(parts)
        self._written += sum(map(len, parts))


def _each(parts: list[bytes | bytearray | memoryview], take: Callable[[bytes | bytearray | memoryview], None]) -> None:
    for part in parts:
        take(part)

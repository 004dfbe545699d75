"""The blob reader: content from this disk where it is here and intact, otherwise from another holder.

Content whose last check is too long ago, or lies in the future because a clock was wrong, is verified as it is read
(`storage.checked`). Corrupt content is quarantined and repaired at once. An answer under way continues from the
repaired copy, at the byte that it has reached.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from registry.catalog.catalog import Catalog
from registry.catalog.content import ContentRow, content_checked, find_content, is_due, note_checked
from registry.cluster.transfer.range_fetch import WholeNeeded
from registry.cluster.transfer.range_reader import RangeReader
from registry.cluster.transfer.transfer import SizeDiffers, Transfer, TransferFailed, Transfers
from registry.errors import ContentUnreachable, StorageFailed
from registry.oci.names import Digest
from registry.oci.ranges import ByteRange
from registry.ports import Clock
from registry.storage.checked import Corrupt, VerifiedFile
from registry.storage.quarantine import MAX_FILES, Quarantine
from registry.storage.store import BlobStore
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import HOUR_S, KIB, to_ms

log = EventLog("concord.contents")

Pieces = AsyncGenerator[bytes | bytearray, None]

WHOLE_BYTES = 256 * KIB
"""Content up to this size is received as a whole before the answer begins, so that corrupt content is a clean error."""
TRIES = 4
NEAR_FACTOR = 2
"""A range is read from a transfer under way that has at most so many times its bytes to receive."""
NOTE_AGAIN_MS = to_ms(HOUR_S)
MAX_UNREPAIRED = 10_000
REPAIRS_AT_ONCE = 64


class BlobReader:
    """Reads content, and repairs what is corrupt."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        transfers: Transfers,
        ranges: RangeReader,
        clock: Clock,
        verify_after_s: float,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._transfers = transfers
        self.ranges = ranges
        self._clock = clock
        self._verify_after_ms = to_ms(verify_after_s)
        self.quarantine = Quarantine(store, catalog.database)
        self.repaired = 0
        """Corrupt contents that were repaired, since the start."""
        self._aside: dict[Digest, tuple[str, ContentRow]] = {}
        """Paths and rows of quarantined copies."""
        self._unrepaired: dict[Digest, int] = {}
        """Sizes of corrupt contents that are not repaired yet."""
        self._watching: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in self._watching:
            task.cancel()

    async def read(
        self,
        digest: Digest,
        size: int,
        writer: int,
        part: ByteRange,
        following: Sequence[ByteRange] = (),
        is_range: bool = False,
    ) -> Pieces:
        """Yield a range of a content that `writer` has linked, wherever it is; passed through where it has no room
        here. The ranges of `following` are read next; `is_range` is True if a client has asked for a range. Raises
        ContentUnreachable, TransferFailed, StorageFailed; SizeDiffers, before the first piece, where the content has
        another size.

        It tries several times, since corrupt content is repaired meanwhile and then read here.
        """
        offset, end = part.first, part.first + part.length
        transfer: Transfer | None = None
        no_room, received = False, None
        by_ranges = self.ranges.serves(digest, size, part, is_range)
        for _ in range(TRIES):
            try:
                pieces = self._held(digest, ByteRange(offset, end - offset), size)
                if pieces is None:
                    uploader = self._catalog.queries.instance_of(writer)
                    rest = ByteRange(offset, end - offset)
                    if by_ranges and not self._is_nearly_here(digest, size, rest):
                        pieces = self._read_range(digest, size, uploader, rest, following)
                    elif no_room or not self._transfers.fits(digest, size):
                        pieces = self._transfers.through(digest, size, uploader, offset, end, received)
                    else:
                        transfer = self._transfers.transfer(digest, size, uploader)
                        if transfer.size != size:  # begun for another link
                            raise SizeDiffers(digest, size, transfer.size)
                        if size:
                            await transfer.until(size if size <= WHOLE_BYTES else min(offset + 1, size))
                        else:
                            await transfer.finished()  # that it is empty is not proved before
                        pieces = transfer.read(offset, end - offset)
                async with aclosing(pieces):
                    async for piece in pieces:
                        yield piece
                        offset += len(piece)
            except WholeNeeded:
                by_ranges = False
                continue
            except Corrupt as corrupt:
                await self.quarantine_and_repair(digest, corrupt)
                continue
            except SizeDiffers as differs:
                if differs.size == size:  # of a transfer that was begun for another link
                    continue
                if offset > part.first:
                    raise TransferFailed(str(differs)) from None
                raise
            except StorageFailed:
                # A read that fails alone, in the middle of a transfer that may turn out bad, has no clean end.
                is_alone = transfer is not None and not transfer.verified and transfer.failure is None
                if no_room or transfer is None or (is_alone and offset > part.first):
                    raise
                no_room, received = True, transfer.received if offset > part.first else None
                continue
            if offset == end:
                return
        raise TransferFailed("the content was found corrupt here again after every repair")

    def _is_nearly_here(self, digest: Digest, size: int, rest: ByteRange) -> bool:
        """Return whether a transfer of the whole is under way that has about as much to receive as the rest of a range
        has: the range does not end before all of it is verified."""
        transfer = self._transfers.under_way(digest)
        return transfer is not None and size - transfer.readable <= NEAR_FACTOR * rest.length

    async def _read_range(
        self, digest: Digest, size: int, uploader: str | None, part: ByteRange, following: Sequence[ByteRange]
    ) -> Pieces:
        """Yield a range of content that is elsewhere; the whole follows in the background where it is due."""
        try:
            async with aclosing(self.ranges.read(digest, size, uploader, part, following)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            if self.ranges.whole.is_due(digest, size) and self._transfers.fits(digest, size):
                self._transfers.transfer(digest, size, uploader)

    async def may_read_ranges(self, digest: Digest, size: int, writer: int, parts: Sequence[ByteRange]) -> bool:
        """Return whether ranges of a content cost about what they hold, in any order: it is on this disk, or holders
        tell how to check parts of it. Raises ContentUnreachable."""
        if self._store.held_size(digest) is not None:
            return True
        if not all(self.ranges.serves(digest, size, part) for part in parts):
            return False
        return await self.ranges.is_possible(digest, size, self._catalog.queries.instance_of(writer))

    async def open(self, digest: Digest, size: int, writer: int, part: ByteRange, is_range: bool = False) -> Pieces:
        """Return what `read` yields, with the first piece read, so that failures there show before the answer begins.
        Raises what `read` raises."""
        return await with_first_piece(self.read(digest, size, writer, part, is_range=is_range))

    async def open_held(self, digest: Digest, part: ByteRange) -> Pieces | None:
        """Return a range of a content from this disk alone, its first piece read; None when it is
        not here or corrupt."""
        try:
            return await with_first_piece(self._read_held(digest, part))
        except Corrupt:
            return None

    async def quarantine_and_repair(self, digest: Digest, corrupt: Corrupt) -> Transfer | None:
        """Quarantine content that was found corrupt, and begin its repair. Return None when it is intact after all,
        quarantined already, or when the catalog cannot be written."""
        try:
            aside = await self.quarantine.add(digest, corrupt)
        except StorageFailed as error:
            log.error(
                LogEvent.QUARANTINE_FAILED,
                "%(digest)s is corrupt and could not be quarantined: %(error)s",
                digest=digest,
                error=error,
            )
            return None
        if aside is None:
            return None
        if aside.path is not None:
            self._aside[digest] = aside.path, aside.row
            while len(self._aside) > MAX_FILES:
                del self._aside[next(iter(self._aside))]
        return self._repair(digest, aside.row.size, aside.quarantined_copy)

    def quarantined_size(self, digest: Digest) -> int | None:
        """Return the size of a content with a quarantined copy; None without one."""
        return self._aside[digest][1].size if digest in self._aside else None

    async def open_quarantined(self, digest: Digest, part: ByteRange) -> Pieces | None:
        """Return a range of a quarantined copy; None unless that range is intact."""
        path, row = self._aside.get(digest, (None, None))
        if path is None or row is None:
            return None
        try:
            return await with_first_piece(VerifiedFile(self._store.disk.open(path), row).read(*part))
        except (Corrupt, OSError):
            return None

    async def quarantine_pending(self) -> None:
        """Quarantine corrupt content that could not be quarantined when it was found, unless it is intact by now."""
        for digest, offset in list(self._store.pending_quarantine.items())[:REPAIRS_AT_ONCE]:
            await self.quarantine_and_repair(digest, Corrupt(offset, "it could not be quarantined before"))

    def retry_repairs(self) -> None:
        """Try again to repair what could not be repaired: a holder may have returned."""
        for digest, size in list(self._unrepaired.items())[:REPAIRS_AT_ONCE]:
            if self._store.held_size(digest) is not None:
                self._is_repaired(digest)
            else:
                del self._unrepaired[digest]  # to come last the next time
                self._repair(digest, size, None)

    def _repair(self, digest: Digest, size: int, quarantined_copy: VerifiedFile | None) -> Transfer:
        if len(self._unrepaired) < MAX_UNREPAIRED:
            self._unrepaired[digest] = size
        transfer = self._transfers.repair(digest, size, quarantined_copy)
        watching = asyncio.create_task(self._watch(transfer))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return transfer

    async def _watch(self, transfer: Transfer) -> None:
        with contextlib.suppress(ContentUnreachable, TransferFailed, StorageFailed):
            await transfer.finished()
            self._is_repaired(transfer.digest)

    def _is_repaired(self, digest: Digest) -> None:
        if self._unrepaired.pop(digest, None) is not None:
            self.repaired += 1
            log.warning(LogEvent.BLOB_REPAIRED, "%(digest)s is repaired", digest=digest)

    async def _read_held(self, digest: Digest, part: ByteRange) -> Pieces:
        try:
            pieces = self._held(digest, part)
            if pieces is None:
                raise Corrupt(part.first, "it is not here")
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        except Corrupt as corrupt:
            await self.quarantine_and_repair(digest, corrupt)
            raise

    def _held(self, digest: Digest, part: ByteRange, size: int | None = None) -> Pieces | None:
        """Return a range of content on this disk, verified if that is due; None where it is not here. Raises
        SizeDiffers where it has another size than `size`."""
        found = (
            content_checked(self._catalog.database, digest) if digest not in self._store.pending_quarantine else None
        )
        if found is None:
            return None
        if size is not None and found[0] != size:
            raise SizeDiffers(digest, size, found[0])
        if self._is_older(found[1], self._verify_after_ms):
            return self._checked(digest, part)
        return self._store.read(self._store.open(digest), *part)

    async def _checked(self, digest: Digest, part: ByteRange) -> Pieces:
        row = find_content(self._catalog.database, digest)
        if row is None:
            raise Corrupt(part.first, "it was quarantined meanwhile")
        async with aclosing(VerifiedFile(self._store.open(digest), row).read(*part)) as pieces:
            async for piece in pieces:
                yield piece
        if part == (0, row.size) and self._is_older(row.checked_ms, self._verify_after_ms or NOTE_AGAIN_MS):
            await self.note_checked([digest])

    def _is_older(self, checked_ms: int, bound_ms: int) -> bool:
        """Return whether a check is `bound_ms` or more ago."""
        return is_due(checked_ms, self._clock.now_ms(), bound_ms)

    async def note_checked(self, digests: list[Digest]) -> None:
        """Record that contents were checked as a whole. A failure does no harm: they are checked again."""
        now_ms = self._clock.now_ms()
        try:
            await self._catalog.database.write(lambda tx: note_checked(tx, digests, now_ms))
        except StorageFailed as error:
            log.warning(
                LogEvent.CHECK_TIME_WRITE_FAILED, "the time of a check could not be written: %(error)s", error=error
            )


async def with_first_piece(pieces: Pieces) -> Pieces:
    """Return the same pieces, the first of which has been read."""
    first = await anext(pieces, b"")
    return _joined(first, pieces)


async def _joined(first: bytes | bytearray, rest: Pieces) -> Pieces:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece

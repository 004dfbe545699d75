"""Transfers of content from other instances: one transfer, many readers.

However many clients wait for a content, it is fetched once, into a file of its own; readers are served from the file as
it grows, and its first bytes from memory meanwhile. When a holder fails, the transfer continues with another holder
from the same offset. Invariant: content that does not match its digest is never kept, and readers get the last byte
of their range only once the digest matches, so a reader of a bad transfer is cut off. Readers do not wait for the disk
to make it durable, since no client was promised that it stays here. A client that disconnects does not end the
transfer for the others. Where a quarantined copy exists, its intact MiBs are taken from it, and only the rest from
holders.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

from registry.catalog.content import add_content
from registry.catalog.database import Database
from registry.cluster.membership.members import Member, Members
from registry.cluster.rpc.client import PeerClient
from registry.cluster.transfer.distrust import Distrust
from registry.cluster.transfer.locator import Locator
from registry.cluster.transfer.pass_through import PassThroughSink
from registry.errors import ContentUnreachable, StorageFailed
from registry.oci.names import Digest, algorithm_of, digest_of
from registry.ports import Clock, DiskFile, PeerUnreachable
from registry.storage.checked import Corrupt, VerifiedFile
from registry.storage.checks import CHECK_SPAN_BYTES, ContentHashes
from registry.storage.disk_budget import DiskBudget
from registry.storage.ingest import RESERVE_BYTES, Ingest
from registry.storage.jobs import in_executor
from registry.storage.store import FETCHES, READ_BYTES, BlobStore
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.fetch")

HOLDERS_RETRY_S = 0.5
"""Time between two searches for holders while there is none."""
STALL_TIMEOUT_S = 10.0
"""Silence after which another holder is read from."""
MAX_PASSING = 16
"""Contents passed through at once: each costs a transfer of its own, and its reader may be gone."""


class TransferFailed(Exception):
    """A transfer ended without the content. Readers that have passed bytes on must break off."""


class SizeDiffers(TransferFailed):
    """A content has another size than was stated. Nothing of it was given out."""

    def __init__(self, digest: Digest, stated: int, size: int) -> None:
        super().__init__(f"{digest} was stated to have {stated} bytes, and has {size}")
        self.size = size


class Transfer:
    """The transfer of one content to this instance."""

    def __init__(self, digest: Digest, size: int, quarantined_copy: VerifiedFile | None) -> None:
        self.digest = digest
        self.size = size
        self.quarantined_copy = quarantined_copy
        """A corrupt copy that was here."""
        self.holder_wait_s = 0.0
        """Seconds for which the transfer waits for a holder."""
        self.head = b""
        """The first bytes received, for waiting readers, until they are written."""
        self.ingest: Ingest | None = None
        self.verified = False
        """True when all bytes have arrived and match the digest."""
        self.kept = False
        """True when the content is durable and in its place."""
        self.failure: Exception | None = None
        self.received: ContentHashes | None = None
        """After a failure, the hashes of at least what may have been given out; None where that is nothing."""
        self._readers = 0
        self._moved = asyncio.Event()

    @property
    def readable(self) -> int:
        """Return how many bytes readers may have."""
        written = self.ingest.written if self.ingest is not None else 0
        return self.size if self.verified else min(max(written, len(self.head)), max(self.size - 1, 0))

    def readable_of(self, end: int) -> int:
        """Return up to where a reader of bytes before `end` may read: not to its last byte before all is verified."""
        return min(self.readable, end if self.verified else end - 1)

    def _has_more(self, offset: int, end: int) -> bool:
        return self.readable_of(end) > offset

    def begins(self, head: bytes) -> None:
        """Keep the first bytes for waiting readers."""
        self.head = head
        self.moved()

    def moved(self) -> None:
        """Wake the readers: more can be read, or the transfer is over."""
        if self.ingest is not None and self.ingest.written >= len(self.head):
            self.head = b""
        self._moved.set()
        self._moved = asyncio.Event()

    async def until(self, size: int) -> None:
        """Wait until `size` bytes can be read. Raises what ended the transfer if it fails first."""
        await self._wait(lambda: self.readable >= size or self.verified)

    async def finished(self) -> None:
        """Wait until the whole is here, verified and durable. Raises what ended the transfer if it fails."""
        await self._wait(lambda: self.kept)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self.failure is not None:
                raise self.failure
            await self._moved.wait()

    async def read(self, offset: int, size: int) -> AsyncGenerator[bytes | bytearray, None]:
        """Up to `size` bytes from `offset`, as they come, until all of the content is in its place: the rest is to be
        read there. Raises TransferFailed, or whatever ended the transfer."""
        self._readers += 1
        try:
            end = min(offset + size, self.size)
            while offset < end:
                await self._wait(partial(self._has_more, offset, end))
                if self.kept:
                    return
                if self.failure is not None or self.ingest is None:
                    raise self.failure or TransferFailed("the transfer is over")
                wanted = self.readable_of(end) - offset
                piece: bytes | bytearray = self.head[offset : offset + wanted]
                if not piece:
                    piece = await self._read_back(self.ingest.file, offset, min(wanted, READ_BYTES))
                    if self.failure is not None:  # what the disk has of it may not be what was written
                        raise self.failure
                yield piece
                offset += len(piece)
        finally:
            self._readers -= 1
            await self.close_if_unused()

    def hashes(self) -> ContentHashes | None:
        """Return bytes that are written, or the first bytes, which may not be."""
        if self.ingest is None:
            return None
        checks = self.ingest.checks.copy()
        if checks.size < len(self.head):
            checks = ContentHashes(algorithm_of(self.digest))
            checks.update(self.head)
        return checks

    async def _read_back(self, file: DiskFile, offset: int, size: int) -> bytes | bytearray:
        read = file.pread_nowait(offset, size)
        if read is None:
            read = await in_executor(partial(file.pread, offset, size))
        if not read:
            raise TransferFailed("the file of a transfer is shorter than what was received")
        return read

    async def close_if_unused(self) -> None:
        """Close the file when the transfer is over and has no more readers."""
        if self._readers == 0 and (self.kept or self.failure is not None) and self.ingest is not None:
            ingest, self.ingest = self.ingest, None
            await ingest.close()


class Transfers:
    """All transfers of one process.

    Has more than a dozen attributes: transfers into files and content that is passed through share the room on the
    disk, the search for holders and the distrust of some.
    """

    def __init__(
        self,
        store: BlobStore,
        budget: DiskBudget,
        database: Database,
        peers: PeerClient,
        members: Members,
        locator: Locator,
        distrust: Distrust,
        clock: Clock,
        holder_wait_s: float,
    ) -> None:
        self._store = store
        self._budget = budget
        self._database = database
        self._peers = peers
        self._members = members
        self._locator = locator
        self._clock = clock
        self._transfers: dict[Digest, Transfer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._distrust = distrust
        self.holder_wait_s = holder_wait_s
        self.fetched_bytes = 0
        self._passing = 0
        self.passed_through = 0
        """Number of times that content was passed through for want of room."""

    def transfer(self, digest: Digest, size: int, uploader: str | None) -> Transfer:
        """Return the transfer of a content, begun if none is under way. `uploader` is the instance of its upload."""
        transfer = self._transfers.get(digest) or self._begin(Transfer(digest, size, None), uploader)
        transfer.holder_wait_s = self.holder_wait_s
        return transfer

    def repair(self, digest: Digest, size: int, quarantined_copy: VerifiedFile | None) -> Transfer:
        """Return the transfer of content that was corrupt here, begun if none is under way. What is right in
        `quarantined_copy` is taken from it. The transfer waits for no holder that is not reachable now, until a reader
        asks for the content."""
        transfer = self._transfers.get(digest)
        if transfer is None:
            return self._begin(Transfer(digest, size, quarantined_copy), None)
        if quarantined_copy is not None:
            quarantined_copy.close()
        return transfer

    def under_way(self, digest: Digest) -> Transfer | None:
        """Return the transfer of a content that is under way; None without one."""
        return self._transfers.get(digest)

    def fits(self, digest: Digest, size: int) -> bool:
        """Return whether there is room for a content, beside what transfers under way will still write.

        Asks the disk at once, which takes microseconds: after a wait, the content might have come meanwhile."""
        if digest in self._transfers:
            return True
        others = [one.size - (one.ingest.written if one.ingest is not None else 0) for one in self._transfers.values()]
        due = size + sum(others)
        return self._budget.has_room(due) and self._store.disk.free() >= RESERVE_BYTES + due

    async def through(
        self, digest: Digest, size: int, uploader: str | None, offset: int, end: int, received: ContentHashes | None
    ) -> AsyncGenerator[bytes, None]:
        """A part of a content that has no room here, see `cluster.transfer.pass_through`. `received` are the hashes of
        what a transfer had before it failed. Raises ContentUnreachable; TransferFailed, also where the reader was
        behind the transfer: what it was given cannot be checked then, unless the transfer had everything."""
        if received is not None and received.size > offset and received.digest() != digest:
            raise TransferFailed("bytes that were sent to the reader cannot be verified any more")
        goes_on = received is not None and received.size <= offset
        passage = PassThroughSink(received.copy() if received and goes_on else ContentHashes(algorithm_of(digest)))
        transfer, at, kept = Transfer(digest, size, None), passage.size, b""
        transfer.holder_wait_s = self.holder_wait_s
        if self._passing >= MAX_PASSING:
            raise ContentUnreachable("there is no room for this content here, and as much is passed through as may be")
        self._passing += 1
        self.passed_through += 1
        task = asyncio.create_task(self._pass(transfer, passage, uploader))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while piece := await passage.next():
                wanted, at = piece[max(offset - at, 0) : max(end - at, 0)], at + len(piece)
                if wanted:
                    if kept:
                        yield kept
                    kept = wanted
            await task
            yield kept
        finally:
            self._passing -= 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _pass(self, transfer: Transfer, passage: PassThroughSink, uploader: str | None) -> None:
        """Receive all bytes of what is passed through, and check them."""
        try:
            sources = await self._receive(transfer, passage, uploader)
            if passage.checks.digest() != transfer.digest:
                self._distrust.note_wrong_bytes(sources, transfer.digest)
                raise TransferFailed("the received content has another digest")
            self._distrust.note_right_bytes(sources, transfer.digest)
        except Exception:
            await passage.end()
            raise
        await passage.end()

    def _begin(self, transfer: Transfer, uploader: str | None) -> Transfer:
        self._transfers[transfer.digest] = transfer
        task = asyncio.create_task(self._run(transfer, uploader))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return transfer

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, transfer: Transfer, uploader: str | None) -> None:
        path = f"{FETCHES}/{transfer.digest.replace(':', '-')}-{self._clock.entropy(4).hex()}"
        try:
            file = await in_executor(lambda: self._store.disk.create(path))
            transfer.ingest = Ingest(
                self._store.disk, file, ContentHashes(algorithm_of(transfer.digest)), transfer.moved
            )
            sources = await self._receive(transfer, transfer.ingest, uploader)
            await transfer.ingest.flush()
            if transfer.ingest.checks.digest() != transfer.digest:
                self._distrust.note_wrong_bytes(sources, transfer.digest)
                raise TransferFailed("the content that was received has another digest")
            self._distrust.note_right_bytes(sources, transfer.digest)
            transfer.verified = True
            transfer.moved()
            await self._keep(transfer, transfer.ingest, path)
            transfer.kept = True
        except (ContentUnreachable, TransferFailed, StorageFailed) as error:
            transfer.failure = error
            transfer.received = transfer.hashes()
        except BaseException:
            transfer.failure = TransferFailed("the transfer was broken off")
            raise
        finally:
            del self._transfers[transfer.digest]
            if transfer.quarantined_copy is not None:
                transfer.quarantined_copy.close()
            transfer.moved()
            await transfer.close_if_unused()
            if not transfer.kept:
                await self._store.remove(path)

    async def _keep(self, transfer: Transfer, ingest: Ingest, path: str) -> None:
        await ingest.sync()
        now, spans = self._clock.now_ms(), ingest.checks.per_mib()
        async with self._store.changing(transfer.digest):
            await self._store.publish(path, transfer.digest)
            await self._database.write(lambda tx: add_content(tx, transfer.digest, transfer.size, spans, now))
        self._budget.on_blob_added(transfer.size)

    async def _receive(
        self, transfer: Transfer, ingest: Ingest | PassThroughSink, uploader: str | None
    ) -> list[Member]:
        """Receive all bytes, from as many holders as it takes. Raises ContentUnreachable where no holder is found."""
        loop = asyncio.get_running_loop()
        sources: list[Member] = []
        progress, progressed_at = ingest.size, loop.time()
        if not transfer.size and digest_of(b"", algorithm_of(transfer.digest)) != transfer.digest:
            size = await self._locator.size_anywhere(transfer.digest)
            if size:
                raise self._differs(transfer, size)
        while await self._lacks(transfer, ingest):
            found: set[int] = set()
            async with aclosing(self._locator.holders(transfer.digest, uploader=uploader)) as holders:
                async for member, size in holders:
                    if self._distrust.includes(member, transfer.digest):
                        continue
                    found.add(size)
                    if size == transfer.size:
                        sources.append(member)
                        while await self._receive_from(member, transfer, ingest, "content"):
                            if not await self._lacks(transfer, ingest):
                                return sources
            if len(found) == 1 and transfer.size not in found and not ingest.size:
                raise self._differs(transfer, found.pop())
            quarantined = await self._locator.quarantined_holders(transfer.digest) if ingest.size == progress else []
            for member, size in quarantined:
                # Copies that are corrupt at different places make an intact one, a MiB at a time.
                while size == transfer.size and await self._receive_from(member, transfer, ingest, "quarantined"):
                    if not await self._lacks(transfer, ingest):
                        return sources
            if ingest.size > progress:
                progress, progressed_at = ingest.size, loop.time()
            elif not self._members.all() or loop.time() - progressed_at >= transfer.holder_wait_s:
                raise ContentUnreachable(
                    f"{transfer.digest} cannot be fetched now: {self._locator.whereabouts(uploader)}",
                    {"digest": transfer.digest, "instance": uploader},
                )
            await asyncio.sleep(HOLDERS_RETRY_S)
        return sources

    def _differs(self, transfer: Transfer, size: int) -> SizeDiffers:
        differs = SizeDiffers(transfer.digest, transfer.size, size)
        log.error(LogEvent.LINK_SIZE_MISMATCHED, "a link states a wrong size: %(problem)s", problem=differs)
        return differs

    async def ensure_held(self, digest: Digest, size: int, uploader: str | None) -> None:
        """Return once a content is here, whatever size its link states. Raises what ended the transfer."""
        try:
            await self.transfer(digest, size, uploader).finished()
        except SizeDiffers as differs:
            await self.transfer(digest, differs.size, uploader).finished()

    async def _lacks(self, transfer: Transfer, ingest: Ingest | PassThroughSink) -> bool:
        """Return whether there are bytes to receive, after the intact part of a quarantined copy is taken."""
        while (
            transfer.quarantined_copy is not None
            and ingest.size < transfer.size
            and ingest.size % CHECK_SPAN_BYTES == 0
        ):
            try:
                await ingest.write(await in_executor(partial(transfer.quarantined_copy.span, ingest.size)))
            except Corrupt:
                break
        return ingest.size < transfer.size

    async def _receive_from(
        self, member: Member, transfer: Transfer, ingest: Ingest | PassThroughSink, kind: str
    ) -> bool:
        """Receive the next missing bytes from one holder, to the end or to where a quarantined copy may continue.
        Return whether all of them came."""
        end = transfer.size
        if transfer.quarantined_copy is not None or kind == "quarantined":
            end = min(end, ingest.size - ingest.size % CHECK_SPAN_BYTES + CHECK_SPAN_BYTES)
        headers = [("Range", f"bytes={ingest.size}-{end - 1}")]
        try:
            async with self._peers.stream(member, f"/{kind}/{transfer.digest}", headers) as response:
                if response.status not in (200, 206) or (response.status == 200 and ingest.size):
                    return False
                chunks = response.chunks().__aiter__()
                while True:
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return ingest.size == end
                    if ingest.size + len(chunk) > end:
                        self._distrust.note_wrong_bytes([member], transfer.digest)
                        return False
                    if ingest.size == 0 and ingest is transfer.ingest:
                        transfer.begins(chunk)
                    await ingest.write(chunk)
                    self.fetched_bytes += len(chunk)
        except (PeerUnreachable, TimeoutError) as error:
            log.info(
                LogEvent.TRANSFER_INTERRUPTED,
                "a transfer of %(digest)s from %(member)s broke off: %(error)s",
                digest=transfer.digest,
                member=member.shown,
                error=error,
            )
            return False

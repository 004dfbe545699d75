"""Content from a peer: one transfer, many readers.

However many clients wait for a content, it is fetched once, into a file of its own; they are served from the file as it
grows. When a holder fails the transfer goes on with another from the same offset. Nothing is kept that does not match
its digest, and the last byte is given out only once it does: whoever reads a transfer that turns out bad is cut off.
A client that leaves never ends it for the others.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from registry.blobs.checks import Checks
from registry.blobs.ingest import Ingest
from registry.blobs.jobs import in_executor
from registry.blobs.store import FETCHES, READ_BYTES, BlobStore
from registry.catalog.content import add_content
from registry.catalog.database import Database
from registry.cluster.locate import Locate
from registry.cluster.members import Member, Members
from registry.cluster.peers import Peers
from registry.errors import ContentUnreachable, StorageFailed
from registry.names import Digest, algorithm_of
from registry.seams import Clock, PeerUnreachable

log = logging.getLogger("concord.fetch")

LOOK_AGAIN_S = 0.5
STALL_S = 10.0
DISTRUST_S = 60.0


class TransferFailed(Exception):
    """A transfer ended without the content. Readers that have passed bytes on must break off."""


class Transfer:
    """One content on its way here."""

    def __init__(self, store: BlobStore, digest: Digest, size: int) -> None:
        self._store = store
        self.digest = digest
        self.size = size
        self.ingest: Ingest | None = None
        self.verified = False
        self.failure: Exception | None = None
        self._readers = 0
        self._moved = asyncio.Event()

    @property
    def readable(self) -> int:
        """Bytes that may be given out."""
        written = self.ingest.written if self.ingest is not None else 0
        return self.size if self.verified else min(written, max(self.size - 1, 0))

    def moved(self) -> None:
        """Wake the readers: more can be read, or it is over."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def until(self, size: int) -> None:
        """Wait until `size` bytes can be read. Raises what ended the transfer if it fails first."""
        while self.readable < size and not self.verified:
            if self.failure is not None:
                raise self.failure
            await self._moved.wait()

    async def finished(self) -> None:
        """Wait until the whole is here, verified and durable. Raises what ended the transfer if it fails."""
        while not self.verified:
            if self.failure is not None:
                raise self.failure
            await self._moved.wait()

    async def read(self, offset: int, size: int) -> AsyncIterator[bytes | bytearray]:
        """`size` bytes from `offset`, as they come. Raises TransferFailed, or whatever ended the transfer."""
        self._readers += 1
        try:
            end = offset + size
            while offset < end:
                await self.until(offset + 1)
                if self.ingest is None:
                    async for piece in self._store.read(self._store.open(self.digest), offset, end - offset):
                        yield piece
                    return
                file, wanted = self.ingest.file, min(READ_BYTES, end - offset, self.readable - offset)
                cached = file.pread_nowait(offset, wanted)
                if cached is None:
                    cached = await in_executor(partial(file.pread, offset, wanted))
                if not cached:
                    raise TransferFailed("the file of a transfer is shorter than what was received")
                yield cached
                offset += len(cached)
        finally:
            self._readers -= 1
            await self.close_if_unused()

    async def close_if_unused(self) -> None:
        """Close the file when the transfer is over and nobody reads it any more."""
        if self._readers == 0 and (self.verified or self.failure is not None) and self.ingest is not None:
            ingest, self.ingest = self.ingest, None
            await ingest.close()


class Fetch:
    """All transfers of one process."""

    def __init__(
        self,
        store: BlobStore,
        database: Database,
        peers: Peers,
        members: Members,
        locate: Locate,
        clock: Clock,
        hold_s: float,
    ) -> None:
        self._store = store
        self._database = database
        self._peers = peers
        self._members = members
        self._locate = locate
        self._clock = clock
        self._transfers: dict[Digest, Transfer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._distrusted: dict[tuple[str, Digest], float] = {}
        self.hold_s = hold_s
        self.fetched_bytes = 0

    def transfer(self, digest: Digest, size: int, uploader: str | None) -> Transfer:
        """The transfer of a content, begun if none is under way. `uploader` is the instance it was uploaded to."""
        transfer = self._transfers.get(digest)
        if transfer is None:
            transfer = self._transfers[digest] = Transfer(self._store, digest, size)
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
            transfer.ingest = Ingest(self._store.disk, file, Checks(algorithm_of(transfer.digest)), transfer.moved)
            sources = await self._receive(transfer, transfer.ingest, uploader)
            await transfer.ingest.sync()
            if transfer.ingest.checks.digest() != transfer.digest:
                self._distrust(sources, transfer.digest)
                raise TransferFailed("the content that was received has another digest")
            await self._keep(transfer, transfer.ingest, path)
            transfer.verified = True
        except (ContentUnreachable, TransferFailed, StorageFailed) as error:
            transfer.failure = error
        except BaseException:
            transfer.failure = TransferFailed("the transfer was broken off")
            raise
        finally:
            del self._transfers[transfer.digest]
            transfer.moved()
            await transfer.close_if_unused()
            if not transfer.verified:
                await self._store.remove(path)

    async def _keep(self, transfer: Transfer, ingest: Ingest, path: str) -> None:
        now, spans = self._clock.now_ms(), ingest.checks.per_mib()
        async with self._store.alone_with(transfer.digest):
            await self._store.publish(path, transfer.digest)
            await self._database.write(lambda tx: add_content(tx, transfer.digest, transfer.size, spans, now))

    async def _receive(self, transfer: Transfer, ingest: Ingest, uploader: str | None) -> list[Member]:
        """Receive all bytes, from as many holders as it takes. Raises ContentUnreachable when none comes forward."""
        loop = asyncio.get_running_loop()
        sources: list[Member] = []
        progress, progressed_at = ingest.size, loop.time()
        while ingest.size < transfer.size:
            async with aclosing(self._locate.holders(transfer.digest, uploader=uploader)) as holders:
                async for member, size in holders:
                    if size == transfer.size and not self._is_distrusted(member, transfer.digest):
                        sources.append(member)
                        await self._receive_from(member, transfer, ingest)
                        if ingest.size >= transfer.size:
                            return sources
            if ingest.size > progress:
                progress, progressed_at = ingest.size, loop.time()
            elif not self._members.all() or loop.time() - progressed_at > self.hold_s:
                raise ContentUnreachable(
                    f"{transfer.digest} cannot be had now: {self._locate.whereabouts(uploader)}",
                    {"digest": transfer.digest, "instance": uploader},
                )
            await asyncio.sleep(LOOK_AGAIN_S)
        return sources

    async def _receive_from(self, member: Member, transfer: Transfer, ingest: Ingest) -> None:
        """Receive from one holder until the end, or until it fails."""
        headers = [("Range", f"bytes={ingest.size}-")]
        try:
            async with self._peers.stream(member, f"/content/{transfer.digest}", headers) as response:
                if response.status not in (200, 206) or (response.status == 200 and ingest.size):
                    return
                chunks = response.chunks().__aiter__()
                while True:
                    async with asyncio.timeout(STALL_S):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    if ingest.size + len(chunk) > transfer.size:
                        self._distrust([member], transfer.digest)
                        return
                    await ingest.write(chunk)
                    self.fetched_bytes += len(chunk)
        except (PeerUnreachable, TimeoutError) as error:
            log.info("a transfer of %s from %s broke off: %s", transfer.digest, member.instance, error)

    def _distrust(self, members: list[Member], digest: Digest) -> None:
        """Leave holders out for a while that gave wrong bytes."""
        for member in members:
            log.error("%s gave wrong bytes for %s", member.instance, digest)
            self._distrusted[member.instance, digest] = asyncio.get_running_loop().time() + DISTRUST_S

    def _is_distrusted(self, member: Member, digest: Digest) -> bool:
        until = self._distrusted.get((member.instance, digest), 0.0)
        if until and until < asyncio.get_running_loop().time():
            del self._distrusted[member.instance, digest]
            return False
        return until > 0.0

"""Resumable uploads at the instance that owns them.

An upload is a file and, once a request has added bytes to it, a row that says how many of them are durable and what
their digest is; after a restart it goes on from there. Ids are checked before they come here (`cluster.upload_ids`): an
id that names this instance, and has neither row nor ended, is an upload without bytes. (OCI distribution
specification, "Pushing blobs".)
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from crdt.frame import Change
from registry.blobs.checks import Checks
from registry.blobs.ingest import Ingest, Mark, in_executor
from registry.blobs.store import READ_BYTES, UPLOADS, BlobStore
from registry.catalog.catalog import Catalog
from registry.catalog.content import (
    UploadRow,
    add_content,
    end_upload,
    expired_uploads,
    find_upload,
    forget_ended_uploads,
    save_upload,
    upload_has_ended,
)
from registry.catalog.database import Transaction
from registry.catalog.repository import link_blob
from registry.errors import BlobUploadUnknown, ChunkOutOfOrder, DigestInvalid, SizeInvalid, StorageFailed
from registry.names import Digest, Repository, algorithm_of
from registry.seams import Clock, DiskFile

IDLE_MS = 60_000
EXPIRY_MS = 24 * 3600 * 1000


class ClientGone(Exception):
    """The client went away, or fell silent, in the middle of a body."""


class Span(NamedTuple):
    """The bytes a request says it brings."""

    first: int
    length: int


class Uploads:
    """All uploads this instance owns. Requests for one upload take turns."""

    def __init__(self, catalog: Catalog, store: BlobStore, clock: Clock) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._sessions: dict[str, _Session] = {}

    def prepare(self) -> None:
        """Remove files of uploads of which nothing was ever acknowledged."""
        disk = self._store.disk
        for name in disk.names(UPLOADS):
            if find_upload(self._catalog.database, name) is None:
                disk.remove(f"{UPLOADS}/{name}")

    def size(self, upload_id: str, repository: Repository) -> int:
        """How many bytes an upload has. Raises BlobUploadUnknown."""
        return self._session(upload_id, repository).size

    async def append(
        self, upload_id: str, repository: Repository, body: AsyncIterator[bytes], span: Span | None
    ) -> int:
        """Add a request's body. Answers the new size, durable.

        Raises ChunkOutOfOrder, SizeInvalid and StorageFailed, which change nothing (but for StorageFailed, which ends
        the upload), and ClientGone, after which what arrived is kept.
        """
        session = self._session(upload_id, repository)
        async with session.lock:
            await self._receive(session, body, span)
            await self._save(session)
            return session.size

    async def finish(
        self, upload_id: str, repository: Repository, digest: Digest, body: AsyncIterator[bytes], span: Span | None
    ) -> Change:
        """Add a last body, check the whole against `digest`, publish it and link it to the repository.

        Raises DigestInvalid, after which the upload is as it was before this request, and all that `append` raises.
        """
        session = self._session(upload_id, repository)
        async with session.lock:
            before = await self._receive(session, body, span)
            if await self._digest(session, algorithm_of(digest)) != digest:
                await (await session.open()).rewind(before)
                raise DigestInvalid("the content has another digest", {"digest": digest})
            try:
                change = await self._publish(session, digest)
            except StorageFailed:
                await self._discard(session)
                raise
            del self._sessions[upload_id]
            await session.close()
            return change

    async def cancel(self, upload_id: str, repository: Repository) -> None:
        """Give an upload up. Raises BlobUploadUnknown."""
        session = self._session(upload_id, repository)
        async with session.lock:
            await self._discard(session)

    async def tidy(self) -> None:
        """Close files that nobody writes to, and give up uploads that have not grown for a day."""
        now = self._clock.now()
        for session in list(self._sessions.values()):
            if not session.lock.locked() and now - session.used_ms > IDLE_MS:
                del self._sessions[session.id]
                await session.close()
        for upload_id in expired_uploads(self._catalog.database, now - EXPIRY_MS):
            row = find_upload(self._catalog.database, upload_id)
            if row is not None:
                await self.cancel(upload_id, row.repository)
        await self._catalog.database.write(lambda tx: forget_ended_uploads(tx, now - 2 * EXPIRY_MS))

    def _session(self, upload_id: str, repository: Repository) -> "_Session":
        session = self._sessions.get(upload_id)
        if session is None:
            if upload_has_ended(self._catalog.database, upload_id):
                raise BlobUploadUnknown("this upload was finished or cancelled")
            row = find_upload(self._catalog.database, upload_id)
            session = self._sessions[upload_id] = _Session(self._store, upload_id, repository, row)
        if session.repository != repository:
            raise BlobUploadUnknown("there is no such upload in this repository")
        session.used_ms = self._clock.now()
        return session

    async def _receive(self, session: "_Session", body: AsyncIterator[bytes], span: Span | None) -> Mark:
        """Add a body and make it durable. Answers where the upload stood before."""
        if session.ended:
            raise BlobUploadUnknown("this upload was finished or cancelled")
        if span is not None and span.first != session.size:
            raise ChunkOutOfOrder("the chunk does not continue the upload", {"size": session.size})
        try:
            ingest = await session.open()
            before = ingest.mark()
            try:
                await _copy(body, ingest, span)
            except SizeInvalid:
                await ingest.rewind(before)
                raise
            except ClientGone:
                await ingest.sync()
                await self._save(session)
                raise
            await ingest.sync()
        except StorageFailed:
            await self._discard(session)
            raise
        except asyncio.CancelledError:
            self._sessions.pop(session.id, None)
            await session.close()
            raise
        return before

    async def _digest(self, session: "_Session", algorithm: str) -> Digest:
        ingest = await session.open()
        if algorithm == ingest.checks.algorithm:
            return ingest.checks.digest()
        return await in_executor(lambda: _read_again(ingest.file, algorithm))

    async def _publish(self, session: "_Session", digest: Digest) -> Change:
        size, spans = session.size, (await session.open()).checks.spans()
        held = self._store.held_size(digest) is not None
        if not held:
            await self._store.publish(session.path, digest)
        now = self._clock.now()

        def commit(tx: Transaction) -> Change:
            add_content(tx, digest, size, spans, now)
            end_upload(tx, session.id, now)
            return link_blob(tx, self._catalog.documents, session.repository, digest, size, now)

        change = await self._catalog.database.write(commit)
        session.ended = True
        if held:
            await self._store.remove(session.path)
        return change

    async def _save(self, session: "_Session") -> None:
        checks = (await session.open()).checks
        sha256 = checks.digest().partition(":")[2]
        row = UploadRow(session.id, session.repository, checks.size, sha256, checks.spans(), self._clock.now())
        await self._catalog.database.write(lambda tx: save_upload(tx, row))

    async def _discard(self, session: "_Session") -> None:
        now = self._clock.now()
        await self._catalog.database.write(lambda tx: end_upload(tx, session.id, now))
        session.ended = True
        self._sessions.pop(session.id, None)
        await session.close()
        await self._store.remove(session.path)


class _Session:
    """One upload in memory: its file, opened when it is first needed, and the hashes of what it holds."""

    def __init__(self, store: BlobStore, upload_id: str, repository: Repository, row: UploadRow | None) -> None:
        self.id = upload_id
        self.path = f"{UPLOADS}/{upload_id}"
        self.repository = row.repository if row else repository
        self.lock = asyncio.Lock()
        self.ended = False
        self.used_ms = 0
        self._store = store
        self._row = row
        self._ingest: Ingest | None = None

    @property
    def size(self) -> int:
        if self._ingest is not None:
            return self._ingest.size
        return self._row.size if self._row else 0

    async def open(self) -> Ingest:
        """The file, to add to. After a restart its content is read once more, to go on hashing."""
        if self._ingest is None:
            disk, size = self._store.disk, self.size

            def prepare() -> Ingest:
                if self._row is None:
                    return Ingest(disk.create(self.path), Checks())
                file = disk.open(self.path, append=True)
                file.truncate(size)
                return Ingest(file, _checks_of(file, size))

            self._ingest = await in_executor(prepare)
        return self._ingest

    async def close(self) -> None:
        if self._ingest is not None:
            ingest, self._ingest = self._ingest, None
            await ingest.close()


async def _copy(body: AsyncIterator[bytes], ingest: Ingest, span: Span | None) -> None:
    end = ingest.size + span.length if span is not None else None
    async for data in body:
        if end is not None and ingest.size + len(data) > end:
            raise SizeInvalid("the body is longer than it was said to be")
        await ingest.write(data)
    if end is not None and ingest.size != end:
        raise SizeInvalid("the body is shorter than it was said to be")


def _checks_of(file: DiskFile, size: int) -> Checks:
    checks = Checks()
    while checks.size < size:
        data = file.pread(checks.size, min(READ_BYTES, size - checks.size))
        if not data:
            raise OSError("an upload's file is shorter than what was acknowledged")
        checks.update(data)
    return checks


def _read_again(file: DiskFile, algorithm: str) -> Digest:
    hashed, offset = hashlib.new(algorithm), 0
    while data := file.pread(offset, READ_BYTES):
        hashed.update(data)
        offset += len(data)
    return Digest(f"{algorithm}:{hashed.hexdigest()}")

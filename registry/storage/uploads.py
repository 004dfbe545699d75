"""Resumable uploads at the instance that owns them (OCI distribution specification, "Pushing blobs").

An upload is a file and, once a request has added bytes to it, a row that says how many of them are durable and what
their digest is; after a restart it goes on from there. Names are checked before they come here
(`cluster.rpc.upload_tokens`): a name without a row that has not ended is an upload without bytes.

How many there are at once is bounded (`upload_places`), and so are their bytes where the disk has a budget. Beginning
one keeps nothing here, so those count that a request has brought bytes for, until they end, expire or are preempted.

Each process of an instance has the uploads whose home it is (`upload_homes`), and has what it must record committed by
the process that writes the catalog (`upload_commits`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from registry.catalog.content import UploadRow, all_uploads, expired_uploads, find_upload, upload_has_ended
from registry.catalog.database import Reads
from registry.errors import (
    BlobUploadUnknown,
    ChunkOutOfOrder,
    DigestInvalid,
    DiskBudgetUsed,
    DiskFull,
    SizeInvalid,
    StorageFailed,
    TooManyUploads,
)
from registry.oci.names import Digest, Repository, algorithm_of
from registry.oci.ranges import ByteRange
from registry.ports import Clock
from registry.storage.disk_budget import DiskBudget
from registry.storage.ingest import RESERVE_BYTES, Ingest, RewindPoint
from registry.storage.jobs import in_executor
from registry.storage.resent import refusing_resent
from registry.storage.shared_usage import OwnUsage
from registry.storage.store import UPLOADS, BlobStore
from registry.storage.upload_commits import Acknowledgement, FinishedUpload, UploadCommits
from registry.storage.upload_hashes import Hasher, KeptHashes
from registry.storage.upload_memory import UploadMemory
from registry.storage.upload_places import UploadPlaces
from registry.storage.upload_session import Preempted, UploadSession
from registry.units import DAY_S, to_ms

CLOSE_AFTER_MS = 60_000
"""Time without a request after which the file of an upload is closed."""
IDLE_AFTER_MS = 3_000
"""Clients pause for less between two requests of an upload."""
EXPIRY_MS = to_ms(DAY_S)
EXPIRY_CONFIRMED_S = 3600.0
"""Time for which an upload must look too old before it is removed: a wall clock that jumps makes all look so."""
STALL_TIMEOUT_S = 5.0
"""A request that has brought nothing for so long counts as idle when the table of uploads is full."""
SEARCH_INTERVAL_S = 0.25
"""When no upload may be preempted the table is searched again after this time: a search over 10,000 takes a few ms."""
MAX_IDLE_FILES = 128


class ClientGone(Exception):
    """The client went away, or fell silent, in the middle of a body."""


class Uploads:
    """The uploads whose home this process is. Requests for one upload take turns."""

    def __init__(
        self,
        database: Reads,
        store: BlobStore,
        clock: Clock,
        places: UploadPlaces,
        budget: DiskBudget,
        commits: UploadCommits,
        usage: OwnUsage,
    ) -> None:
        self._database = database
        self._commits = commits
        self._usage = usage
        self._store = store
        self._clock = clock
        self._hasher, self._kept, self.memory = Hasher(), KeptHashes(), UploadMemory(usage.slot.count)
        self._places = places
        self._budget = budget
        self._being_preempted: set[str] = set()
        self._none_before_s = 0.0
        """Until then, in steady seconds, no upload may be preempted: a search has just found none."""
        self._sessions: dict[str, UploadSession] = {}
        self._idle: OrderedDict[str, UploadSession] = OrderedDict()
        """Sessions with an open file and no request at work, in the order of their last use."""
        self._expired_since: dict[UploadRow, float] = {}
        """The time, in steady seconds, since which an upload in its present state has looked too old."""
        self._at_work = 0

    def prepare(self) -> None:
        """Remove files of uploads of which nothing was ever acknowledged, and count the others."""
        disk = self._store.disk
        self._count_all()
        for name in disk.names(UPLOADS):
            if self._is_home(name) and find_upload(self._database, name) is None:
                disk.remove(f"{UPLOADS}/{name}")

    def has_bytes(self, upload: str) -> bool:
        """Return whether bytes were acknowledged of an upload that has not ended."""
        return find_upload(self._database, upload) is not None

    @property
    def at_work(self) -> bool:
        """Return whether a request of an upload is under way at any process, or has just ended so that another will
        follow."""
        return self._usage.shared.uploads_at_work(self._clock.now_ms() - IDLE_AFTER_MS)

    def size(self, upload: str, repository: Repository) -> int:
        """Return how many bytes an upload has. Raises BlobUploadUnknown."""
        session = self._sessions.get(upload) or self._found(upload, repository)
        session.check_repository(repository)
        return session.size

    def check_number(self) -> None:
        """Raise TooManyUploads while there may be no more and none may be preempted."""
        if self._places.is_full:
            self._next_to_preempt()

    def check_disk(self, size_bytes: int = 0) -> None:
        """Raise DiskFull where the disk has no room for a new upload, of which `size_bytes` are known to come.
        Asks the disk at once, which takes microseconds."""
        free_bytes = self._store.disk.free()
        if free_bytes < RESERVE_BYTES + size_bytes:
            raise DiskFull({"free_bytes": free_bytes, "reserved_bytes": RESERVE_BYTES})

    async def append(
        self, upload: str, repository: Repository, body: AsyncIterator[bytes], span: ByteRange | None, network: str = ""
    ) -> int:
        """Add a request's body, of a client in `network`. Return the new size, durable.

        Raises ChunkOutOfOrder, SizeInvalid and TooManyUploads, which change nothing unless the upload is preempted
        itself, ClientGone, after which what arrived is kept, StorageFailed, which ends the upload because it is unknown
        what the disk holds of it, and DiskBudgetUsed, which ends it to free its bytes.
        """
        async with self._turn(upload, repository, network) as session:
            await self._receive(session, body, span)
            if session.size:  # else there is nothing to keep, see `_turn`
                await self._save(session)
            return session.size

    async def finish(
        self,
        upload: str,
        repository: Repository,
        digest: Digest,
        body: AsyncIterator[bytes],
        span: ByteRange | None,
        network: str = "",
    ) -> Acknowledgement:
        """Add a last body, check the whole against `digest`, publish it and link it to the repository.

        Raises DigestInvalid, after which the upload is as it was before this request, and all that `append` raises.
        """
        async with self._turn(upload, repository, network) as session:
            before = await self._receive(session, body, span)
            if await session.digest(algorithm_of(digest), before.size) != digest:
                await (await session.open()).rewind(before)
                raise DigestInvalid("the content has another digest", {"digest": digest})
            checks = (await session.open()).checks.per_mib()
            finished = FinishedUpload(session.id, session.repository, digest, session.size, checks)
            acknowledgement = await self._commits.publish(finished)
            await self._end(session)
            return acknowledgement

    async def cancel(self, upload: str, repository: Repository) -> None:
        """Cancel an upload. Raises BlobUploadUnknown."""
        async with self._turn(upload, repository, takes_place=False) as session:
            await self._discard(session)

    async def tidy(self) -> None:
        """Close files of idle uploads, and remove uploads that have not grown for a day."""
        now_ms = self._clock.now_ms()
        for session in list(self._sessions.values()):
            if now_ms - session.used_ms > CLOSE_AFTER_MS:
                await self._forget_idle(session)
        for row in self._given_up(now_ms):
            await self._expire(row)
        self._count_all()

    def _given_up(self, now_ms: int) -> list[UploadRow]:
        now_s = self._clock.steady_s()
        expired = [row for row in expired_uploads(self._database, now_ms - EXPIRY_MS) if self._is_home(row.id)]
        self._expired_since = {row: self._expired_since.get(row, now_s) for row in expired}
        return [row for row in expired if now_s - self._expired_since[row] >= EXPIRY_CONFIRMED_S]

    def _is_home(self, upload: str) -> bool:
        return self._usage.slot.is_home(upload)

    async def _expire(self, row: UploadRow) -> None:
        """Give up an upload that is still as `row` says. A request at work on it is not waited for: what that brings
        is acknowledged, and is a day younger."""
        session = self._sessions.get(row.id)
        if session is not None and session.is_at_work:
            return
        with suppress(BlobUploadUnknown):  # it has ended meanwhile
            async with self._turn(row.id, row.repository, takes_place=False) as session:
                if find_upload(self._database, row.id) == row:
                    await self._discard(session)

    async def _session(
        self, upload: str, repository: Repository, network: str | None, takes_place: bool
    ) -> UploadSession:
        """Return an upload's session, begun if there is none. Raises BlobUploadUnknown and TooManyUploads."""
        while takes_place and upload not in self._places and self._places.is_full:
            self._found(upload, repository).check_repository(repository)  # else another would be preempted for nothing
            await self._preempt(self._next_to_preempt())
        session = self._sessions.get(upload)
        if session is None:
            session = self._found(upload, repository)
        session.check_repository(repository)
        self._sessions[upload] = session
        session.used_ms = self._clock.now_ms()
        self._use(session, network)
        return session

    def _found(self, upload: str, repository: Repository) -> UploadSession:
        if upload_has_ended(self._database, upload):
            raise BlobUploadUnknown("this upload was finished, cancelled, or preempted by others")
        row = find_upload(self._database, upload)
        return UploadSession(self._store, self._hasher, self._kept, self.memory, upload, repository, row)

    def _next_to_preempt(self) -> str:
        """Return the upload to preempt next. Raises TooManyUploads where all have a request at work."""
        now_s = self._clock.steady_s()
        if now_s >= self._none_before_s:
            found = self._places.next_to_preempt(now_s, self._may_be_preempted)
            if found is not None:
                return found
            self._none_before_s = now_s + SEARCH_INTERVAL_S
        raise TooManyUploads(
            "this instance has as many uploads under way as it takes; push again in a while",
            {"uploads": self._usage.shared.uploads},
        )

    def _may_be_preempted(self, upload: str, idle_s: float) -> bool:
        session = self._sessions.get(upload)
        if upload in self._being_preempted:
            return False
        if session is None or not session.is_at_work:
            return True
        return session.is_preemptible and idle_s >= STALL_TIMEOUT_S

    async def _preempt(self, upload: str) -> None:
        """End an upload so that another may take its place. Its client is answered 404, or 429 if a request is under
        way, and begins again."""
        self._being_preempted.add(upload)
        try:
            session = self._sessions.get(upload)
            if session is not None and session.is_at_work:
                session.preempt()
                async with session.lock:
                    return
            row = find_upload(self._database, upload)
            repository = session.repository if session is not None else row.repository if row is not None else None
            if repository is None:
                self._places.drop(upload)
                return
            with suppress(BlobUploadUnknown):  # it has ended meanwhile
                await self.cancel(upload, repository)
                self._usage.count_preempted()
        finally:
            self._being_preempted.discard(upload)

    def _use(self, session: UploadSession, network: str | None = None) -> None:
        """Record that an upload is used now, and how many bytes it has."""
        self._places.use(session.id, session.size, self._clock.steady_s(), network)

    def _count_all(self) -> None:
        """Count anew, since a request that was broken off may have ended its upload all the same."""
        sizes = {name: size for name, size in all_uploads(self._database).items() if self._is_home(name)}
        sizes |= {session.id: session.size for session in self._sessions.values()}
        self._places.recount(sizes, self._clock.steady_s())

    @asynccontextmanager
    async def _turn(
        self, upload: str, repository: Repository, network: str | None = None, takes_place: bool = True
    ) -> AsyncIterator[UploadSession]:
        """An upload for one request alone. Only here, what leaves it in an unknown state ends or forgets it."""
        self._at_work += 1
        self._publish_activity()
        try:
            async with self._own_turn(upload, repository, network, takes_place) as session:
                yield session
        finally:
            self._at_work -= 1
            self._publish_activity()

    def _publish_activity(self) -> None:
        last_idle = next(reversed(self._idle.values()), None)
        self._usage.set_activity(self._at_work, last_idle.used_ms if last_idle is not None else 0)

    @asynccontextmanager
    async def _own_turn(
        self, upload: str, repository: Repository, network: str | None, takes_place: bool
    ) -> AsyncIterator[UploadSession]:
        while True:
            session = await self._session(upload, repository, network, takes_place)
            async with session.turn():
                if self._sessions.get(upload) is not session:
                    continue  # it ended, or was given up, while we waited for our turn
                self._idle.pop(upload, None)
                try:
                    yield session
                except (StorageFailed, DiskBudgetUsed, Preempted) as error:
                    if isinstance(error, Preempted):
                        self._usage.count_preempted()
                    await self._discard(session)
                    raise
                except asyncio.CancelledError:
                    await self._forget(session)  # the next request goes on from what is durable
                    raise
                finally:
                    if self._sessions.get(upload) is session:
                        if session.is_empty:  # an empty upload has nothing to keep, so it takes no place
                            await self._forget(session)
                        else:
                            self._use(session)
                            self._idle[upload] = session
                session.used_ms = self._clock.now_ms()
            await self._close_idle()
            return

    async def _close_idle(self) -> None:
        """Keep few files open on which no request is at work, those that were used last."""
        while len(self._idle) > MAX_IDLE_FILES:
            _, session = self._idle.popitem(last=False)
            await self._forget_idle(session)

    async def _receive(self, session: UploadSession, body: AsyncIterator[bytes], span: ByteRange | None) -> RewindPoint:
        """Add a body and make it durable. Return where the upload stood before."""
        if span is not None and span.first != session.size:
            raise ChunkOutOfOrder("the chunk does not continue the upload", {"size": session.size})
        ingest = await session.open()
        before = ingest.rewind_point()
        if span is None and session.size:
            body = refusing_resent(body, ingest.file, session.size)
        try:
            await self._copy(body, session, ingest, span)
        except SizeInvalid:
            await ingest.rewind(before)
            raise
        except ClientGone:
            if session.size:
                await ingest.sync()
                await self._save(session)
            raise
        await ingest.sync()
        return before

    async def _copy(
        self, body: AsyncIterator[bytes], session: UploadSession, ingest: Ingest, span: ByteRange | None
    ) -> None:
        end = ingest.size + span.length if span is not None else None
        async with session.preemptible():
            while True:
                await self.memory.wait_for_room()
                data = await anext(body, None)
                if data is None:
                    break
                if end is not None and ingest.size + len(data) > end:
                    raise SizeInvalid("the body is longer than its Content-Range")
                self._budget.check_room()
                await ingest.write(data)
                self._use(session)
        if end is not None and ingest.size != end:
            raise SizeInvalid("the body is shorter than its Content-Range")

    async def _save(self, session: UploadSession) -> None:
        if not session.is_named:
            await in_executor(partial(self._store.disk.sync_directory, UPLOADS))  # else the file may be without a name
            session.is_named = True
        checks = (await session.open()).checks
        sha256 = checks.digest().partition(":")[2]
        row = UploadRow(session.id, session.repository, checks.size, sha256, self._clock.now_ms())
        await self._commits.save(row)
        session.durable = row.size

    async def _discard(self, session: UploadSession) -> None:
        """End an upload and remove its file: that first, since on a full disk nothing else can be written."""
        await self._end(session)
        await self._store.remove(session.path)
        await self._commits.end(session.id)

    async def _end(self, session: UploadSession) -> None:
        """Close the file of an ended upload."""
        self._leave(session)
        self._places.drop(session.id)
        await session.close()
        self._kept.take(session.id)

    async def _forget(self, session: UploadSession) -> None:
        """Close an upload's file. What is durable can go on; a file of which nothing was acknowledged is removed,
        before a request can begin it anew."""
        try:
            await session.close()
            if session.durable is None:
                await self._store.remove(session.path)
        finally:
            self._leave(session)
            if session.durable is None:
                self._places.drop(session.id)
            else:
                self._places.resize(session.id, session.durable)

    def _leave(self, session: UploadSession) -> None:
        self._sessions.pop(session.id, None)
        self._idle.pop(session.id, None)

    async def _forget_idle(self, session: UploadSession) -> None:
        """The same where no request is at work."""
        if not session.is_at_work:
            async with session.lock:
                if self._sessions.get(session.id) is session:
                    await self._forget(session)

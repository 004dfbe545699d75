"""The fetch of some MiBs of one content from its holders, several holders at once.

Every MiB is compared with its digest (`chunk_digests`) before a reader gets any byte of it. A holder that sends wrong
bytes is distrusted, one that breaks off or falls silent is left out, and its MiBs go to another holder. Holders are
brought in as there is work for them (`range_schedule`). Nothing that is fetched here is kept as content.
"""

import asyncio
from contextlib import aclosing
from typing import NamedTuple, Protocol

from registry.cluster.membership.members import Member, Members
from registry.cluster.rpc.client import PeerClient, PeerRefused
from registry.cluster.transfer.chunk_digests import DIGEST_BYTES, ChunkDigests
from registry.cluster.transfer.distrust import Distrust
from registry.cluster.transfer.locator import Locator
from registry.cluster.transfer.range_schedule import RangeSchedule, Run, Stream
from registry.cluster.transfer.transfer import TransferFailed
from registry.errors import ContentUnreachable
from registry.oci.names import Digest
from registry.ports import PeerUnreachable
from registry.storage.checks import CHECK_SPAN_BYTES
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.fetch")

DIGESTS_TIMEOUT_S = 2.0
HOLDERS_RETRY_S = 0.5
"""Time between two searches for holders while there is none."""
SEARCH_AGAIN_S = 5.0
"""Time without a MiB after which holders are searched for again, beside those that there are."""
STALL_TIMEOUT_S = 10.0
"""Silence after which a holder is given up."""
CHECK_INTERVAL_S = 0.5
"""Time between two looks for holders that are slow."""
MAX_HOLDERS = 4
STREAMS = 2
"""Requests at once to one holder, so that one is under way while the next one travels there."""


class WholeNeeded(Exception):
    """A content cannot be fetched by ranges: it is on this disk by now, or a transfer of the whole has to decide."""


class Holders(NamedTuple):
    """The parts by which holders are found and asked."""

    peers: PeerClient
    members: Members
    locator: Locator
    distrust: Distrust
    wait_s: float
    """Seconds for which a reader waits for a holder."""


class Receiver(Protocol):
    """The owner of fetches, with its counters."""

    fetched_bytes: int
    corrupt: int
    replaced: int

    def is_here(self, digest: Digest) -> bool:
        """Return whether a content has come to this disk."""

    def take(self, digest: Digest, mib: int, data: bytes) -> None:
        """Take a MiB, which is right."""


class RangeFetch:
    """The MiBs of one content that readers need. Owned by the `RangeReader`, which ends it."""

    def __init__(
        self,
        digest: Digest,
        size: int,
        uploader: str | None,
        holders: Holders,
        receiver: Receiver,
        chunk_digests: ChunkDigests,
    ) -> None:
        """`chunk_digests` holds what holders have stated in an earlier fetch, or nothing."""
        self.digest = digest
        self.size = size
        self._uploader = uploader
        self._holders = holders
        self._receiver = receiver
        self.chunk_digests = chunk_digests
        self.failure: Exception | None = None
        self._schedule = RangeSchedule()
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._left_out: dict[str, bool] = {}
        """Holders that failed since the last search, and whether they will never do: see `WholeNeeded`."""
        self._changed = asyncio.Event()
        self._finder = asyncio.create_task(self._find())
        self._finder.add_done_callback(self._finder_ended)

    def close(self) -> None:
        self._finder.cancel()
        for task in self._workers.values():
            task.cancel()
        self._fail(TransferFailed("the fetch was ended"))

    def request(self, mib: int) -> "asyncio.Future[bytes | None]":
        """Return the future of one MiB. Its result is None when the fetch fails, see `failure`."""
        future = self._schedule.request(mib)
        if self.failure is not None:
            self._schedule.fail()
        self._notify()
        return future

    async def has_digests(self) -> None:
        """Wait until a holder has stated the digests of the MiBs. Raises what ends the fetch before that."""
        while not self.chunk_digests.size_bytes:
            if self.failure is not None:
                raise self.failure
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _fail(self, failure: Exception) -> None:
        self.failure = self.failure or failure
        self._schedule.fail()
        self._notify()

    # The search for holders

    async def _find(self) -> None:
        """Bring in holders as they are needed, until the fetch ends or fails."""
        while self.failure is None:
            while not self._is_needed:
                await self._changed.wait()
            self._left_out.clear()
            found = self._holders.locator.holders(self.digest, uploader=self._uploader)
            async with aclosing(found) as holders:
                async for member, size in holders:
                    if size != self.size:
                        self._left_out[member.instance] = True
                    elif self._is_usable(member):
                        self._workers[member.instance] = asyncio.create_task(self._work(member))
                        await self._until_more_are_needed()
            await self._until_search_is_needed()

    @property
    def _is_needed(self) -> bool:
        """True if a reader waits for a MiB, or for the digests of the MiBs."""
        return not self._schedule.is_empty or not self.chunk_digests.size_bytes

    def _finder_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error if isinstance(error, Exception) else TransferFailed(str(error)))

    def _is_usable(self, member: Member) -> bool:
        is_known = member.instance in self._workers or member.instance in self._left_out
        return not is_known and not self._holders.distrust.includes(member, self.digest)

    async def _until_more_are_needed(self) -> None:
        """Wait until no holder is left, or those that there are leave work for another one."""
        while self._workers and len(self._workers) >= self._schedule.holders_needed(MAX_HOLDERS):
            await self._wait(CHECK_INTERVAL_S)

    async def _until_search_is_needed(self) -> None:
        """Handle the end of a search for holders: wait while some are fetching, and fail if none is left."""
        while self._workers and (self._schedule.is_empty or self._schedule.idle_s < SEARCH_AGAIN_S):
            await self._wait(HOLDERS_RETRY_S)
        if self._workers:
            return
        is_here = self._receiver.is_here(self.digest)
        if any(self._left_out.values()) or is_here or await self._holders.locator.quarantined_holders(self.digest):
            self._fail(WholeNeeded())
            return
        has_waited = not self._holders.members.all() or self._schedule.idle_s >= self._holders.wait_s
        if has_waited and self._is_needed:
            whereabouts = self._holders.locator.whereabouts(self._uploader)
            detail = {"digest": self.digest, "instance": self._uploader}
            self._fail(ContentUnreachable(f"{self.digest} cannot be fetched now: {whereabouts}", detail))
            return
        await self._wait(HOLDERS_RETRY_S)

    async def _wait(self, timeout_s: float) -> None:
        """Wait until something changes, for a bounded time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    # One holder

    async def _work(self, member: Member) -> None:
        """Fetch from one holder until it fails or the fetch ends."""
        try:
            if self.chunk_digests.is_stated_by(member.instance) or await self._agrees(member):
                streams = [asyncio.create_task(self._read(member, number)) for number in range(STREAMS)]
                try:
                    ended, _ = await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()
                finally:
                    for task in streams:
                        task.cancel()
        finally:
            self._left_out.setdefault(member.instance, False)
            self._workers.pop(member.instance, None)
            self._notify()

    async def _agrees(self, member: Member) -> bool:
        """Ask a holder for the digests of the MiBs. Return whether it may take part."""
        try:
            stated = await self._holders.peers.chunk_digests(member, self.digest, DIGESTS_TIMEOUT_S)
        except PeerRefused:  # of an earlier version
            self._left_out[member.instance] = True
            return False
        except PeerUnreachable:
            return False
        count = -(-self.size // CHECK_SPAN_BYTES)
        if stated.size != self.size or len(stated.chunk_digests) != count * DIGEST_BYTES:
            self._left_out[member.instance] = True
            return False
        if not self.chunk_digests.state(member.instance, stated.chunk_digests):
            log.error(
                LogEvent.CHUNK_DIGESTS_DIFFER,
                "%(member)s states other digests of the MiBs of %(digest)s than another holder",
                member=member.shown,
                digest=self.digest,
            )
            # What readers were given may be wrong: an answer must not end cleanly.
            self._fail(TransferFailed("holders state different digests of the same content"))
            return False
        self._notify()
        return True

    async def _read(self, member: Member, number: int) -> None:
        while await self._take_part(member, (member.instance, number)):
            pass

    async def _take_part(self, member: Member, stream: Stream) -> bool:
        """Fetch the next MiBs by a stream of a holder. Return whether it is to go on."""
        run = self._schedule.next_run(stream, STREAMS * len(self._workers))
        if run is None:
            run = self._schedule.second_run(stream)
            self._receiver.replaced += run is not None
        if run is None:
            await self._wait(CHECK_INTERVAL_S)
            return self.failure is None
        try:
            return await self._receive(member, stream, run)
        except (PeerUnreachable, TimeoutError) as error:
            self._receiver.replaced += 1
            log.info(
                LogEvent.TRANSFER_INTERRUPTED,
                "a transfer of %(digest)s from %(member)s broke off: %(error)s",
                digest=self.digest,
                member=member.shown,
                error=error,
            )
            return False
        finally:
            self._schedule.end(stream)

    async def _receive(self, member: Member, stream: Stream, run: Run) -> bool:
        """Receive a run of MiBs from a holder. Return whether all of them came and were right."""
        first = run.missing[0] * CHECK_SPAN_BYTES
        end = min((run.missing[-1] + 1) * CHECK_SPAN_BYTES, self.size)
        headers = [("Range", f"bytes={first}-{end - 1}")]
        async with self._holders.peers.stream(member, f"/content/{self.digest}", headers) as response:
            if response.status != 206:
                return False
            chunks, buffer = response.chunks().__aiter__(), bytearray()
            while run.missing:
                mib = run.missing[0]
                wanted = min(CHECK_SPAN_BYTES, self.size - mib * CHECK_SPAN_BYTES)
                while len(buffer) < wanted:
                    async with asyncio.timeout(STALL_TIMEOUT_S):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return False
                    buffer += chunk
                    run.note_heard()
                    self._receiver.fetched_bytes += len(chunk)
                    if not self._schedule.is_needed(run):
                        return True  # others have brought the rest
                data = bytes(memoryview(buffer)[:wanted])
                del buffer[:wanted]
                if not self.chunk_digests.matches(mib, data):
                    self._receiver.corrupt += 1
                    self._holders.distrust.note_wrong_bytes([member], self.digest)
                    return False
                if self._schedule.received(stream, run, data):
                    self._receiver.take(self.digest, mib, data)
                    self._notify()
        return True

"""The scrubber: verifying all content in turn, so that bit rot is found and repaired while an intact replica exists.

In the background the scrubber verifies content whose last check is long ago, at a bounded rate, the oldest check first,
and manifest bodies soon after a start and then as often. On request it makes a full pass: all content once, in the
order in which it was added, and all manifest bodies. Corrupt or missing content is quarantined and fetched again at
once. A request during a full pass joins that pass.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

import msgspec

from registry.catalog.catalog import Catalog
from registry.catalog.content import (
    ContentRow,
    content_between,
    content_bytes,
    due_content,
    last_content,
    oldest_check_ms,
)
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.transfer.blob_reader import BlobReader
from registry.cluster.transfer.transfer import Transfer, TransferFailed
from registry.config import Config
from registry.errors import ContentUnreachable, StorageFailed
from registry.event_loop.now import now_s
from registry.oci.names import Digest
from registry.ports import Clock
from registry.storage.checked import Corrupt, VerifiedFile
from registry.storage.checks import CHECK_SPAN_BYTES
from registry.storage.jobs import in_executor
from registry.storage.store import BlobStore
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import MIB, to_ms, to_s

log = EventLog("concord.scrub")

CHECK_INTERVAL_S = 60.0
DEFAULT_MIB_S = 20.0
BATCH = 64
BODIES = 8
FIRST_BODIES_CHECK_S = 600.0
"""The time after a start at which manifest bodies are verified for the first time."""
REPAIRS_AT_ONCE = 4
AT_ONCE = 2
"""Number of parts of a content that are read and compared at once."""
MAX_SPANS = 16
BURST_S = 0.25
"""Bound on the bytes read at once, as a time: at a low rate the pieces are small."""
MIN_SLEEP_S = 0.005
"""Shorter sleeps are added up until they reach this."""


class Pass(msgspec.Struct):
    """The progress of a full pass, or of all checks since the start."""

    started_ms: int
    ended_ms: int | None = None
    total_bytes: int = 0
    """Bytes to check when the pass began."""
    bytes: int = 0
    contents: int = 0
    corrupt: int = 0
    repaired: int = 0


class Scrubber:
    """The background scrub of one instance, and its results.

    Has more than a dozen attributes: three loops (due content, full passes, manifest bodies) share one pace.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        store: BlobStore,
        blob_reader: BlobReader,
        bodies: ManifestBodies,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._blob_reader = blob_reader
        self._bodies = bodies
        self._clock = clock
        self._in_background = config.scrub_mib_s > 0
        self._pace = _Pace((config.scrub_mib_s or DEFAULT_MIB_S) * MIB)
        spans = int((config.scrub_mib_s or DEFAULT_MIB_S) * BURST_S / AT_ONCE)
        self._window_bytes = max(1, min(spans, MAX_SPANS)) * CHECK_SPAN_BYTES
        self._every_ms = to_ms(config.scrub_interval_s)
        self._bodies_due_at = now_s() + FIRST_BODIES_CHECK_S
        self._requested = asyncio.Event()
        self._repairs: set[asyncio.Task[None]] = set()
        self.running: Pass | None = None
        """The full pass under way; None without one."""
        self.last: Pass | None = None
        self.all = Pass(clock.now_ms())
        """All checks since the start."""
        if config.scrub_at_start:
            self.begin()

    def begin(self) -> bool:
        """Request a full pass. Return False where one is under way, which the request joins."""
        if self.running is not None:
            return False
        self.running = Pass(self._clock.now_ms(), total_bytes=content_bytes(self._catalog.database))
        self._requested.set()
        return True

    def oldest_check_ms(self) -> int | None:
        return oldest_check_ms(self._catalog.database)

    async def run(self) -> None:
        """Verify what is due or requested, for ever."""
        while True:
            await self._blob_reader.quarantine_pending()
            self._blob_reader.retry_repairs()
            if self.running is not None:
                await self._full_pass(self.running)
            elif self._in_background:
                await self._check_due()
            if self.running is None:
                self._requested.clear()
                try:
                    async with asyncio.timeout(CHECK_INTERVAL_S):
                        await self._requested.wait()
                except TimeoutError:
                    pass

    async def _full_pass(self, full: Pass) -> None:
        log.info(LogEvent.SCRUB_STARTED, "all content is being checked")
        tallies = [self.all, full]
        upto = last_content(self._catalog.database)  # what comes meanwhile is checked as it comes
        number, rows = content_between(self._catalog.database, 0, upto, BATCH)
        while rows:
            await self._check_batch(rows, tallies)
            number, rows = content_between(self._catalog.database, number, upto, BATCH)
        await self._check_bodies(tallies)
        while self._repairs:
            await asyncio.wait(self._repairs)
        full.ended_ms = self._clock.now_ms()
        self.last, self.running = full, None
        log.info(
            LogEvent.SCRUB_FINISHED,
            "all content was checked: %(contents)d contents, %(corrupt)d corrupt, %(repaired)d repaired",
            contents=full.contents,
            corrupt=full.corrupt,
            repaired=full.repaired,
        )

    async def _check_due(self) -> None:
        """Verify content until none is due, or a full pass is requested."""
        first: ContentRow | None = None
        while self.running is None:
            rows = due_content(self._catalog.database, self._clock.now_ms(), self._every_ms, BATCH)
            if not rows or rows[0] == first:
                break  # what is due still could not be checked, or that not be noted
            first = rows[0]
            await self._check_batch(rows, [self.all])
        if self.running is None and now_s() >= self._bodies_due_at:
            await self._check_bodies([self.all])

    async def _check_batch(self, rows: list[ContentRow], tallies: list[Pass]) -> None:
        right: list[Digest] = []
        for row in rows:
            try:
                await self._check(row, tallies)
                right.append(row.digest)
            except Corrupt as corrupt:
                transfer = await self._blob_reader.quarantine_and_repair(row.digest, corrupt)
                if transfer is not None:
                    await self._repair(_is_repaired(transfer), tallies)
            except StorageFailed as error:
                log.warning(
                    LogEvent.BLOB_CHECK_FAILED,
                    "%(digest)s could not be checked: %(error)s",
                    digest=row.digest,
                    error=error,
                )
        await self._blob_reader.note_checked(right)

    async def _check(self, row: ContentRow, tallies: list[Pass]) -> None:
        """Verify one content. Raises Corrupt, or StorageFailed when it cannot be verified now."""
        for tally in tallies:
            tally.contents += 1
        checked = await in_executor(lambda: VerifiedFile(self._store.open(row.digest), row))
        try:
            await in_executor(checked.check_size)
            step = AT_ONCE * self._window_bytes
            for first in range(0, row.size, step):
                end = min(first + step, row.size)
                windows = range(first, end, self._window_bytes)
                found = await asyncio.gather(
                    *(in_executor(partial(self._check_window, checked, at)) for at in windows), return_exceptions=True
                )
                for failure in found:
                    if isinstance(failure, BaseException):
                        raise failure
                await self._pace.took(end - first, tallies)
        finally:
            checked.close()

    def _check_window(self, checked: VerifiedFile, first: int) -> None:
        """Verify some MiBs. Blocks. Raises Corrupt."""
        for at in range(first, min(first + self._window_bytes, checked.size), CHECK_SPAN_BYTES):
            checked.span(at)

    async def _check_bodies(self, tallies: list[Pass]) -> None:
        """Compare the bodies of manifests with their digests, a few at a time."""
        self._bodies_due_at = now_s() + to_s(self._every_ms)
        number = 0
        while bodies := self._catalog.queries.bodies_after(number, BODIES):
            number = bodies[-1][0]
            for _, digest, body in bodies:
                try:
                    right = await self._bodies.checked(digest, body) is not None
                except StorageFailed as error:
                    log.warning(
                        LogEvent.MANIFEST_BODY_REMOVAL_FAILED,
                        "the body of %(digest)s could not be dropped: %(error)s",
                        digest=digest,
                        error=error,
                    )
                    continue
                for tally in tallies:
                    tally.contents += 1
                if not right:
                    await self._repair(self._is_fetched(digest), tallies)
                await self._pace.took(len(body), tallies)

    async def _is_fetched(self, digest: Digest) -> bool:
        return await self._bodies.fetch(digest) is not None

    async def _repair(self, repair: Coroutine[Any, Any, bool], tallies: list[Pass]) -> None:
        """Begin a repair, and wait only where many are under way."""
        for tally in tallies:
            tally.corrupt += 1
        task = asyncio.create_task(_counted(repair, tallies))
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)
        if len(self._repairs) >= REPAIRS_AT_ONCE:
            await asyncio.wait(self._repairs, return_when=asyncio.FIRST_COMPLETED)


async def _counted(repair: Coroutine[Any, Any, bool], tallies: list[Pass]) -> None:
    if await repair:
        for tally in tallies:
            tally.repaired += 1


async def _is_repaired(transfer: Transfer) -> bool:
    with contextlib.suppress(ContentUnreachable, TransferFailed, StorageFailed):
        await transfer.finished()
    return transfer.kept


class _Pace:
    """A rate limiter for reads."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def took(self, size: int, tallies: list[Pass]) -> None:
        """Record that bytes were read, and wait until more may be."""
        for tally in tallies:
            tally.bytes += size
        now = now_s()
        self._free_at = max(self._free_at, now) + size / self._bytes_per_s
        if self._free_at - now > MIN_SLEEP_S:
            await asyncio.sleep(self._free_at - now)

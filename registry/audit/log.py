"""The audit log of one process: gathers lines, and writes them shortly after."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from registry.audit.chain import EMPTY, BrokenChain, Head, heads, next_line
from registry.errors import StorageFailed
from registry.ports import Clock, Disk, DiskFile
from registry.storage.jobs import in_executor
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit
from registry.telemetry.request_ids import CURRENT
from registry.units import MIB, to_s

log = EventLog("concord.audit")

Extent = Literal["off", "writes", "all"]

DIRECTORY = "audit"
SUFFIX = ".jsonl"
WRITE_AFTER_S = 0.2
"""Time for which lines are gathered. A kill loses so much of the log at most."""
FILE_BYTES = 16 * MIB
STRANGERS_A_MINUTE = 20
MAX_PENDING = 10_000
"""Bound on the lines that wait for a disk that takes none. Those beyond it are counted in the next line."""


class AuditLog:
    """The audit log of one process."""

    def __init__(self, disk: Disk, clock: Clock, slot: int, extent: Extent, kept_bytes: int) -> None:
        """`slot` is the number of the process. Of its files, the oldest are removed beyond `kept_bytes`."""
        self._disk = disk
        self._clock = clock
        self._prefix = f"{slot:03}-"
        self._extent = extent
        self._kept_files = max(kept_bytes // FILE_BYTES, 1)
        self._pending: list[dict[str, Any]] = []
        self._left_out = 0
        self._strangers = LogLimit(clock, STRANGERS_A_MINUTE, 60.0)
        self._head: Head | None = None
        """None before the first write."""
        self._file: DiskFile | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def takes_reads(self) -> bool:
        """True if every read is recorded, so that none may take the fast path."""
        return self._extent == "all"

    def admit_stranger(self) -> dict[str, object] | None:
        """Return what a line about a request without an account adds, or None where it is left out: such lines must not
        push out others, which are removed once there is more than is kept."""
        return self._strangers.admit()

    def note(self, event: str, **fields: object) -> None:
        """Record an event, which is written soon."""
        if self._extent == "off":
            return
        if len(self._pending) >= MAX_PENDING:
            self._left_out += 1
            return
        time = datetime.fromtimestamp(to_s(self._clock.now_ms()), UTC).isoformat(timespec="milliseconds")
        self._pending.append({"time": time, "event": event, "request": CURRENT.get(), **fields})
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def close(self) -> None:
        """Write what is pending, if the disk takes it."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        with suppress(StorageFailed):
            await self._write()
        if self._file is not None:
            self._file.close()

    async def _write_soon(self) -> None:
        while self._pending:
            await asyncio.sleep(WRITE_AFTER_S)
            try:
                await self._write()
            except StorageFailed as error:
                log.error(LogEvent.AUDIT_FAILED, "the audit log cannot be written: %(error)s", error=error)
                await asyncio.sleep(1.0)

    async def _write(self) -> None:
        """Append all that is pending. Raises StorageFailed, and keeps it."""
        if not self._pending:
            return
        pending, left_out = list(self._pending), self._left_out
        if left_out:
            pending[0] = pending[0] | {"lines_left_out_before": left_out}
        await in_executor(partial(self._append, pending))
        del self._pending[: len(pending)]
        self._left_out -= left_out

    def _append(self, pending: Sequence[Mapping[str, Any]]) -> None:
        head = self._continued() if self._head is None else self._head
        if self._file is None or self._file.size() >= FILE_BYTES:
            self._begin_file(head)
        assert self._file is not None, "a file was begun"
        lines = []
        for fields in pending:
            line, head = next_line(head, dict(fields))
            lines.append(line + b"\n")
        try:
            self._file.append(lines)
            self._file.sync()
        except OSError:
            self._head = None  # some lines may be there: they are read again, and all of these are written once more
            raise
        self._head = head

    def _names(self) -> list[str]:
        return [name for name in self._disk.names(DIRECTORY) if name.startswith(self._prefix)]

    def _continued(self) -> Head:
        """Return the head of what is on the disk, which goes on in a new file: a line that a kill has cut off stays the
        end of its file. A file without a whole line is removed."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._disk.make_directory(DIRECTORY)
        for name in reversed(self._names()):
            if lines := read_lines(self._disk, name):
                return last_head(lines)
            self._disk.remove(f"{DIRECTORY}/{name}")
        return EMPTY

    def _begin_file(self, head: Head) -> None:
        """Begin a file, named by its first line, and remove the oldest ones."""
        if self._file is not None:
            self._file.close()
        self._file = self._disk.create(f"{DIRECTORY}/{self._prefix}{head.number + 1:012}{SUFFIX}")
        self._disk.sync_directory(DIRECTORY)
        for name in self._names()[: -self._kept_files]:
            self._disk.remove(f"{DIRECTORY}/{name}")


def read_lines(disk: Disk, name: str) -> list[bytes]:
    """Return the whole lines of a file of an audit log."""
    file = disk.open(f"{DIRECTORY}/{name}")
    try:
        return file.pread(0, file.size()).split(b"\n")[:-1]
    finally:
        file.close()


def last_head(lines: list[bytes]) -> Head:
    """Return the head after the last line of a file, whatever stands before it."""
    head = EMPTY
    with suppress(BrokenChain):
        (head,) = heads(lines[-1:])
    return head

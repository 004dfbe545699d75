"""The five seams through which all I/O goes.

In production, `registry.adapters` implements them; a simulation implements a virtual network, disk and clock, and runs
the same registry. Everything that can have bugs of its own (group commit, crash-safe publication, hashing, growing
files, retries, timeouts) lives above the seams. Timers are asyncio's own. Blocking calls of Disk and DiskFile are made
in the loop's executor wherever they may take long.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import apsw


class Clock(Protocol):
    """Wall time, time to measure with, and randomness."""

    def now_ms(self) -> int:
        """Wall milliseconds since 1970. May jump, in both directions."""

    def steady_s(self) -> float:
        """Seconds since some moment, which never jump. An event loop's own time stands still while a callback runs."""

    def entropy(self, size: int) -> bytes:
        """Unpredictable bytes."""


class Bus(Protocol):
    """A channel that delivers frames to every instance, without any guarantee."""

    refused: Counter[str]
    """Messages that were dropped by their first bytes, by reason."""

    def publish(self, frame: bytes, site: str | None = None, cluster: str | None = None) -> None:
        """Send to every instance, or to those of one site; on the first channel, or another one that all listen to.
        Never waits and never fails; what cannot be sent is lost."""

    def servers(self) -> dict[str, bool]:
        """The servers it goes through, without their secrets, and whether each is heard."""

    def listen(self) -> AsyncIterator[bytes]:
        """Yield frames as they arrive, our own among them. Reconnects by itself; frames are lost silently meanwhile."""


class PeerResponse(Protocol):
    """An answer whose body has not been read."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body. Ends cleanly only if the body was whole, else raises PeerUnreachable."""


Body = bytes | AsyncIterator[bytes]


class PeerTransport(Protocol):
    """HTTP requests to other instances."""

    def request(
        self, method: str, url: str, headers: Sequence[tuple[str, str]] = (), body: Body = b""
    ) -> AbstractAsyncContextManager[PeerResponse]:
        """Send a request and wait for the head of its answer.

        Raises PeerUnreachable when there is no answer, and whatever a streamed body raises. Timeouts are the caller's.
        """


class PeerUnreachable(Exception):
    """A peer did not answer, or not to the end."""


class KeySource(Protocol):
    """The keys that identity providers publish."""

    async def fetch(self, issuer: str) -> bytes:
        """Return the JSON Web Key Set of an issuer. Raises IssuerUnreachable."""


class IssuerUnreachable(Exception):
    """An identity provider did not give its keys. The message says why."""


class DiskFile(Protocol):
    """An open file. All calls raise OSError."""

    def append(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write all parts at the end."""

    def pread(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`; fewer only at the end of the file."""

    def pread_nowait(self, offset: int, size: int) -> bytes | bytearray | None:
        """Return what `pread` does, or None where that would wait for the device."""

    def truncate(self, size: int) -> None: ...

    def sync(self) -> None:
        """Make the content durable. After a failure it must be treated as lost."""

    def size(self) -> int: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """One data directory. Paths are relative to it. All calls raise OSError."""

    def make_directory(self, path: str) -> None:
        """Create a directory and its parents; it may exist."""

    def create(self, path: str) -> DiskFile:
        """Create a file that must not exist, for appending and reading."""

    def open(self, path: str, append: bool = False) -> DiskFile:
        """Open an existing file for reading, and for appending if asked."""

    def rename(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    def free(self) -> int:
        """Bytes that can still be written."""

    def total(self) -> int:
        """Bytes of the file system that the directory is on."""

    def connect(self, path: str) -> apsw.Connection:
        """Open an SQLite database."""

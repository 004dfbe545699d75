"""The state of hashing an upload, and keeping it while the upload's file is closed.

Files of idle uploads are closed, hashes are kept: without them the next request, of one byte perhaps, would have the
upload read and hashed from its beginning. What was dropped, or lost by a restart, is hashed again in bounded steps.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from registry.oci.names import Digest
from registry.ports import DiskFile
from registry.storage.checks import ContentHashes
from registry.storage.jobs import in_executor
from registry.units import MIB

if TYPE_CHECKING:
    from hashlib import _Hash

STEP_BYTES = 4 * MIB
"""Hashed by one job, some ten milliseconds: jobs of others wait for no more than that."""
STEPS_AT_ONCE = 2
"""Number of such jobs of all uploads together, so that other threads of the executor are free for receiving."""
KEPT_BYTES = 32 * MIB
STATE_BYTES, MIB_BYTES = 4096, 80
"""Bytes of memory that count for a hash state, and for each MiB of its upload."""


class Hasher:
    """Hashes files in steps, a few at once over all uploads."""

    def __init__(self) -> None:
        self._steps = asyncio.Semaphore(STEPS_AT_ONCE)

    async def hash(self, update: Callable[[bytes], None], file: DiskFile, first: int, end: int) -> None:
        """Pass the bytes of a file from `first` to `end` to `update`. Raises StorageFailed, also where the file is too
        short."""
        while first < end:
            async with self._steps:
                first += await in_executor(partial(_step, update, file, first, min(end - first, STEP_BYTES)))


def _step(update: Callable[[bytes], None], file: DiskFile, offset: int, size: int) -> int:
    data = file.pread(offset, size)
    if not data:
        raise OSError("an upload's file is shorter than what was acknowledged")
    update(data)
    return len(data)


class OtherHashes:
    """Digests of an upload by other algorithms than the one it is received with, for the algorithms that a client has
    named.

    The hash state of the bytes before the request is kept. So a client that sends a wrong digest again and again causes
    only the bytes of its own request to be hashed again.
    """

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, _Hash]] = {}

    async def digest(self, hasher: Hasher, algorithm: str, file: DiskFile, before: int, end: int) -> Digest:
        """Return the digest of the first `end` bytes of a file, of which `before` bytes stay whatever comes of it."""
        size, state = self._states.get(algorithm) or (0, hashlib.new(algorithm))
        state = state.copy()
        await hasher.hash(state.update, file, size, before)
        self._states[algorithm] = before, state.copy()
        await hasher.hash(state.update, file, before, end)
        return Digest(f"{algorithm}:{state.hexdigest()}")


class KeptHashes:
    """The states of uploads whose files are closed, by upload, those used last, within a bound."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[ContentHashes, OtherHashes]] = OrderedDict()
        self._bytes = 0

    def keep(self, upload: str, checks: ContentHashes, others: OtherHashes) -> None:
        """Keep a state until it is taken, or others need its room."""
        self.take(upload)
        self._kept[upload] = checks, others
        self._bytes += _cost(checks)
        while self._bytes > KEPT_BYTES:
            self.take(next(iter(self._kept)))

    def take(self, upload: str) -> tuple[ContentHashes, OtherHashes] | None:
        """Return an upload's state, and keep it no more."""
        found = self._kept.pop(upload, None)
        if found is not None:
            self._bytes -= _cost(found[0])
        return found


def _cost(checks: ContentHashes) -> int:
    return STATE_BYTES + checks.size // (MIB) * MIB_BYTES

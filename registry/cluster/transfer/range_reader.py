"""The range reader: ranges of content that is elsewhere, from the MiBs that they are in.

A reader is ahead of its client by some MiBs, so that several holders are kept busy, and fewer where there are many
readers: memory is bounded. Readers of one content share a fetch (`range_fetch`). MiBs that were fetched last stay in
memory for a while, since clients that pull in parts ask for many small ranges near each other. Ranges need no room on
this disk, and leave nothing there.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

from registry.cluster.transfer.chunk_digests import ChunkDigests
from registry.cluster.transfer.range_fetch import Holders, RangeFetch, WholeNeeded
from registry.cluster.transfer.whole_policy import WholePolicy
from registry.oci.names import Digest
from registry.oci.ranges import ByteRange
from registry.storage.checks import CHECK_SPAN_BYTES
from registry.storage.store import BlobStore
from registry.units import GIB, MIB

AHEAD_MIBS = 16
"""MiBs that one reader asks for before its client has taken them."""
MAX_AHEAD_MIBS = 64
"""The same over all readers, of which each may be one ahead."""
RECENT_MIBS = 32
LINGER_S = 1.0
"""Time for which a fetch waits for another reader: the parts of one answer are read one after the other."""
MAX_SIZE_BYTES = 64 * GIB
"""Larger content is transferred whole: its digests of MiBs take more than 2 MiB."""
SHARED_BYTES = 64 * MIB
"""From this size on, holders share also a range that is in all MiBs."""
MAX_STATEMENTS_BYTES = 8 * MIB


class RangeReader:
    """All ranges of one process that are read from other instances."""

    def __init__(self, holders: Holders, store: BlobStore, whole: WholePolicy) -> None:
        self._holders = holders
        self._store = store
        self.whole = whole
        self._fetches: dict[tuple[Digest, int], RangeFetch] = {}
        self._readers: dict[RangeFetch, int] = {}
        self._recent: OrderedDict[tuple[Digest, int], bytes] = OrderedDict()
        """MiBs that were fetched last, by content and number."""
        self._statements: OrderedDict[tuple[Digest, int], ChunkDigests] = OrderedDict()
        """The digests of MiBs that holders have stated lately, by content and size."""
        self.answered = 0
        """Ranges that were read from other instances, since the start."""
        self.fetched_bytes = 0
        self.corrupt = 0
        """MiBs that did not have their digest."""
        self.replaced = 0
        """Times that a holder broke off, fell silent or was slow, so that its MiBs were asked of another one."""

    def close(self) -> None:
        for fetch in list(self._readers):
            self._end(fetch)

    def serves(self, digest: Digest, size: int, part: ByteRange, is_range: bool = False) -> bool:
        """Return whether to read a range of a content by MiBs. A range that touches all MiBs is read so only if the
        content is large and the client has requested a range (`is_range`)."""
        is_whole = part.first < CHECK_SPAN_BYTES and part.end > (size - 1) // CHECK_SPAN_BYTES * CHECK_SPAN_BYTES
        stated = self._statements.get((digest, size))
        is_disputed = stated is not None and stated.is_disputed
        is_whole = is_whole and not (is_range and size >= SHARED_BYTES)
        return part.length > 0 and not is_whole and size <= MAX_SIZE_BYTES and not is_disputed

    async def is_possible(self, digest: Digest, size: int, uploader: str | None) -> bool:
        """Return whether a holder tells how to check the MiBs of a content. Raises ContentUnreachable."""
        fetch = self._open(digest, size, uploader)
        try:
            await fetch.has_digests()
        except WholeNeeded:
            return False
        finally:
            self._release(fetch, LINGER_S)
        return True

    async def read(
        self, digest: Digest, size: int, uploader: str | None, part: ByteRange, following: Sequence[ByteRange]
    ) -> AsyncGenerator[bytes, None]:
        """Yield a range of a content. The ranges of `following` are read next, and requested ahead. Raises
        ContentUnreachable, TransferFailed, WholeNeeded."""
        self.answered += 1
        fetch, linger_s = self._open(digest, size, uploader), 0.0
        try:
            coming = _mibs([part, *following])
            window: deque[tuple[int, bytes | asyncio.Future[bytes | None]]] = deque()
            at = part.first
            while at < part.end:
                if len(window) <= self._ahead // 2:
                    while len(window) < self._ahead and (mib := next(coming, None)) is not None:
                        window.append((mib, self._request(fetch, mib)))
                mib, awaited = window.popleft()
                data = awaited if isinstance(awaited, bytes) else await _arrived(fetch, awaited)
                piece = cut(data, mib * CHECK_SPAN_BYTES, part)
                yield piece
                at += len(piece)
            linger_s = LINGER_S
        finally:
            self._release(fetch, linger_s)

    @property
    def _ahead(self) -> int:
        return max(1, min(AHEAD_MIBS, MAX_AHEAD_MIBS // max(sum(self._readers.values()), 1)))

    def _request(self, fetch: RangeFetch, mib: int) -> "bytes | asyncio.Future[bytes | None]":
        data = self._recent.get((fetch.digest, mib))
        if data is None:
            return fetch.request(mib)
        self._recent.move_to_end((fetch.digest, mib))
        return data

    # For the fetches

    def is_here(self, digest: Digest) -> bool:
        return self._store.held_size(digest) is not None

    def take(self, digest: Digest, mib: int, data: bytes) -> None:
        self._recent[digest, mib] = data
        if len(self._recent) > RECENT_MIBS:
            self._recent.popitem(last=False)
        self.whole.note_moved(digest, len(data))

    def _open(self, digest: Digest, size: int, uploader: str | None) -> RangeFetch:
        """Return the fetch of a content, with one reader more."""
        key = digest, size
        fetch = self._fetches.get(key)
        if fetch is None or fetch.failure is not None:
            stated = self._statements.pop(key, None) or ChunkDigests()
            fetch = self._fetches[key] = RangeFetch(digest, size, uploader, self._holders, self, stated)
            self._readers[fetch] = 0
        self._readers[fetch] += 1
        return fetch

    def _release(self, fetch: RangeFetch, linger_s: float) -> None:
        if fetch not in self._readers:
            return
        self._readers[fetch] -= 1
        if not self._readers[fetch]:
            if linger_s and fetch.failure is None:
                asyncio.get_running_loop().call_later(linger_s, self._end_if_unused, fetch)
            else:
                self._end(fetch)

    def _end_if_unused(self, fetch: RangeFetch) -> None:
        if self._readers.get(fetch) == 0:
            self._end(fetch)

    def _end(self, fetch: RangeFetch) -> None:
        """End a fetch, and remember what its holders have stated, unless all of them failed."""
        key, stated = (fetch.digest, fetch.size), fetch.chunk_digests
        del self._readers[fetch]
        if self._fetches.get(key) is fetch:
            del self._fetches[key]
        if stated.is_disputed or fetch.failure is None:
            self._statements[key] = stated
            while sum(one.size_bytes for one in self._statements.values()) > MAX_STATEMENTS_BYTES:
                self._statements.popitem(last=False)
        fetch.close()


def cut(data: bytes, at: int, part: ByteRange) -> bytes:
    """Return what a range has of the bytes that begin at `at`."""
    return data[max(part.first - at, 0) : part.end - at]


def _mibs(parts: Iterable[ByteRange]) -> Iterator[int]:
    """Yield the numbers of the MiBs that ranges are in, in their order, none twice in a row."""
    last = None
    for part in parts:
        for mib in range(part.first // CHECK_SPAN_BYTES, (part.end - 1) // CHECK_SPAN_BYTES + 1):
            if mib != last:
                yield mib
            last = mib


async def _arrived(fetch: RangeFetch, awaited: "asyncio.Future[bytes | None]") -> bytes:
    """Wait for a MiB, which other readers may wait for, too. Raises what ended the fetch."""
    if not awaited.done():
        await asyncio.wait([awaited])
    data = awaited.result()
    if data is None:
        assert fetch.failure is not None
        raise fetch.failure
    return data

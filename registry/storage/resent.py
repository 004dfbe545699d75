"""Detection of a stream that is sent again from its beginning.

A client whose connection breaks may repeat its request as it was. Without Content-Range nothing says that the body is
not the continuation of what is there, so that appending it fails at the very end, when the digest is compared. But such
a body can be recognized: it begins as the upload does. It is compared as far as 64 KiB. A body shorter than that and
than the upload cannot be all of the stream again, and is appended.

An honest continuation may begin so by chance, the more easily the fewer bytes are there. So an upload of less than
4 KiB is not compared, nor one that begins with one byte over and over, as images of disks do. Content that repeats a
longer pattern over the whole of what is compared still looks the same. A client that sends such content in several
requests says with Content-Range where each continues, as the specification asks.
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from registry.errors import ChunkOutOfOrder
from registry.ports import DiskFile
from registry.storage.jobs import in_executor
from registry.units import KIB

COMPARED_BYTES = 64 * KIB
"""As much as the smallest piece of a large body: it tells streams apart and costs one read of a cached page."""


LEAST_COMPARED_BYTES = 4096
"""Longer than the bytes that streams of one kind have in common: headers of formats, blocks of a tar archive."""


async def refusing_resent(body: AsyncIterator[bytes], file: DiskFile, size: int) -> AsyncIterator[bytes]:
    """Yield a body that is appended to an upload of `size` bytes, which `file` holds. Raise ChunkOutOfOrder, before any
    of it is yielded, where it begins as an upload does that is long enough to tell something."""
    seen = bytearray()
    there: bytes | None = None
    differs = size < LEAST_COMPARED_BYTES
    async for piece in body:
        if differs:
            yield piece
            continue
        if there is None:
            there = await _read(file, min(size, COMPARED_BYTES))
            differs = there.count(there[:1]) == len(there)
        compared = there[len(seen) : len(seen) + len(piece)]
        differs = differs or piece[: len(compared)] != compared
        if differs:
            if seen:
                yield bytes(seen)
            yield piece
            continue
        seen += piece
        if len(seen) >= len(there):
            raise ChunkOutOfOrder(
                "the body begins as the upload does: begin another upload to send the stream again, "
                "or say with Content-Range where it continues",
                {"size": size},
            )
    if seen and not differs:
        yield bytes(seen)


async def _read(file: DiskFile, size: int) -> bytes:
    """Read the first bytes: at once where the page cache has them, as it nearly always does. Raises StorageFailed."""
    with contextlib.suppress(OSError):  # which the second read meets, too
        piece = file.pread_nowait(0, size)
        if piece is not None:
            return bytes(piece)
    return await in_executor(partial(file.pread, 0, size))

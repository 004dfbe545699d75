"""Detection of a stream that is sent again from its beginning.

A client whose connection breaks may repeat its request as it was. Without Content-Range nothing says that the body is
not the continuation of what is there, so that appending it fails at the very end, when the digest is compared. But the
body gives itself away: it begins as the upload does. It is compared as far as 64 KiB. A body shorter than that and than
the upload cannot be all of the stream again, and is appended.

Content that repeats itself over the whole of what is there (an upload of zeros) looks the same. A client that sends
such content in several requests says with Content-Range where each continues, as the specification asks.
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from registry.blobs.jobs import in_executor
from registry.errors import ChunkOutOfOrder
from registry.seams import DiskFile

COMPARED_BYTES = 64 * 1024
"""As much as the smallest piece of a large body: it tells streams apart and costs one read of a cached page."""


async def refusing_resent(body: AsyncIterator[bytes], file: DiskFile, size: int) -> AsyncIterator[bytes]:
    """Yield a body that is appended to an upload of `size` bytes, which `file` holds. Raise ChunkOutOfOrder, before any
    of it is yielded, where it begins as the upload does."""
    seen = bytearray()
    there: bytes | None = None
    differs = False
    async for piece in body:
        if differs:
            yield piece
            continue
        if there is None:
            there = await _read(file, min(size, COMPARED_BYTES))
        compared = there[len(seen) : len(seen) + len(piece)]
        differs = piece[: len(compared)] != compared
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

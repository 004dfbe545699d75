"""Several ranges of a content in one answer: `multipart/byteranges` (RFC 9110, section 14.6).

Ranges near each other are read in one run, and what lies between them is dropped. That costs less than to begin a read
for each, and bounds how often the same bytes are read and checked, however small and many the ranges are.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from registry.oci.ranges import ByteRange
from registry.units import KIB

GAP_BYTES = 256 * KIB
"""The most that is read and dropped between two ranges. A MiB, which is checked as a whole, is read four times at
most."""
BOUNDARY_SIZE = 16
"""Random bytes in a boundary, so that no content can be crafted to contain it."""

Pieces = AsyncGenerator[bytes | bytearray, None]


class Multipart(NamedTuple):
    """The parts of an answer, and what stands between them."""

    ranges: list[ByteRange]
    size: int
    """Bytes of the whole content."""
    boundary: str

    def head(self, part: ByteRange) -> bytes:
        """Return the delimiter and headers before a part."""
        return (
            f"\r\n--{self.boundary}\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Range: bytes {part.first}-{part.end - 1}/{self.size}\r\n\r\n"
        ).encode()

    def end(self) -> bytes:
        """Return the closing delimiter after the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode()

    def length(self) -> int:
        """Bytes of the answer's body."""
        return sum(len(self.head(part)) + part.length for part in self.ranges) + len(self.end())


class Run(NamedTuple):
    """Ranges that are read at once."""

    span: ByteRange
    ranges: list[ByteRange]


def runs(ranges: Sequence[ByteRange], gap_bytes: int) -> list[Run]:
    """Return ranges, which do not overlap, in runs: ascending, with at most `gap_bytes` between two."""
    found: list[Run] = []
    for one in ranges:
        last = found[-1] if found else None
        if last is not None and 0 <= one.first - last.span.end <= gap_bytes:
            found[-1] = Run(ByteRange(last.span.first, one.end - last.span.first), [*last.ranges, one])
        else:
            found.append(Run(one, [one]))
    return found


async def assembled(multipart: Multipart, gap_bytes: int, read: Callable[[ByteRange], Pieces]) -> Pieces:
    """Yield the body. `read` yields the bytes of one range, and may raise."""
    for run in runs(multipart.ranges, gap_bytes):
        at, parts = run.span.first, run.ranges
        async with aclosing(read(run.span)) as pieces:
            async for piece in pieces:
                end, done = at + len(piece), 0
                for part in parts:
                    if part.first >= end:
                        break
                    if part.first >= at:
                        yield multipart.head(part)
                    yield piece[max(part.first - at, 0) : part.end - at]
                    done += part.end <= end
                at, parts = end, parts[done:]
        await asyncio.sleep(0)  # cached content is read without waiting, so other tasks need a turn
    yield multipart.end()

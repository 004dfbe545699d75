"""Verified reads: content is compared with its digests before any byte of it leaves.

Sooner or later a disk returns other bytes than were written, or none. So each MiB is read whole, compared with the
BLAKE3 digest that was computed when it came, and only then passed on: the very bytes that were compared.
"""

from collections.abc import AsyncGenerator
from functools import partial
from typing import NamedTuple

from blake3 import blake3

from registry.catalog.content import ContentRow
from registry.oci.names import Digest
from registry.ports import DiskFile
from registry.storage.checks import CHECK_SPAN_BYTES
from registry.storage.jobs import in_executor

_DIGEST_SIZE = 32


class Corrupt(Exception):
    """A content file does not hold what it should from `offset` on."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"at byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason


class Corruption(NamedTuple):
    """A content that was found corrupt, and the offset of the first bad byte."""

    digest: Digest
    offset: int


class VerifiedFile:
    """An open content file of which every byte is verified before it is returned."""

    def __init__(self, file: DiskFile, row: ContentRow) -> None:
        self._file = file
        self._row = row
        self.size = row.size

    def check_size(self) -> None:
        """Blocks. Raises Corrupt."""
        size = self._file.size()
        if size != self.size:
            raise Corrupt(min(size, self.size), f"the file has {size} of {self.size} bytes")

    def span(self, first: int) -> bytes:
        """The MiB that begins at `first`. Blocks. Raises Corrupt."""
        wanted = min(CHECK_SPAN_BYTES, self.size - first)
        try:
            data = self._file.pread(first, wanted)
        except OSError as error:
            raise Corrupt(first, f"it cannot be read: {error.strerror or error}") from None
        if len(data) < wanted:
            raise Corrupt(first, "the file is too short")
        at = first // CHECK_SPAN_BYTES * _DIGEST_SIZE
        if blake3(data).digest() != self._row.chunk_digests[at : at + _DIGEST_SIZE]:
            raise Corrupt(first, "its bytes have changed")
        return data

    async def read(self, offset: int, size: int) -> AsyncGenerator[bytes | bytearray, None]:
        """`size` bytes from `offset`, in pieces; the file is closed at the end. Raises Corrupt."""
        try:
            end = offset + size
            while offset < end:
                first = offset - offset % CHECK_SPAN_BYTES
                data = await in_executor(partial(self.span, first))
                yield data[offset - first : end - first]
                offset = first + len(data)
        finally:
            self.close()

    def close(self) -> None:
        self._file.close()

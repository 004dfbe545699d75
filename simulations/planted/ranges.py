"""Bugs of ranges of content that other instances hold."""

from unittest.mock import patch

import registry.cluster.transfer.range_reader as range_reader_module
from registry.cluster.transfer.chunk_digests import ChunkDigests
from registry.cluster.transfer.transfer import Transfer
from registry.oci.ranges import ByteRange
from simulations.planted.bug import Bug


def mib_unchecked() -> Bug:
    """A MiB that a holder sent is passed on whatever it is."""
    return patch.object(ChunkDigests, "matches", lambda self, mib, data: True)


def range_of_what_is_not_verified() -> Bug:
    """A range that is read from a transfer of the whole ends before the digest of the whole matches."""
    return patch.object(Transfer, "readable_of", lambda self, end: min(self.readable, end))


def range_off_by_one() -> Bug:
    """A range that begins inside a MiB begins one byte too late, and ends one byte too late where it can."""
    cut = range_reader_module.cut

    def shifted(data: bytes, at: int, part: ByteRange) -> bytes:
        inside = part.first > at and part.end < at + len(data)
        return cut(data, at, ByteRange(part.first + inside, part.length))

    return patch.object(range_reader_module, "cut", shifted)

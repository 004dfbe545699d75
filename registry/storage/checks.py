"""Hashing bytes as they come.

Beside the content's digest, each MiB gets a BLAKE3 digest of its own, three to four times as fast to check later: for
scrubs, and for checking what is about to be sent.
"""

import hashlib
from typing import TYPE_CHECKING

from blake3 import blake3

from registry.oci.names import Digest
from registry.units import MIB

if TYPE_CHECKING:
    from hashlib import _Hash

CHECK_SPAN_BYTES = MIB


class ContentHashes:
    """The digest of a growing content, and of each of its MiBs. It can be copied, so that an ingest can be rewound."""

    def __init__(self, algorithm: str = "sha256") -> None:
        self.algorithm = algorithm
        self.size = 0
        self._whole: _Hash = hashlib.new(algorithm)
        self._full: list[bytes] = []
        self._partial = blake3()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in more bytes. Releases the GIL for most of the work."""
        self.update_digest(data)
        self.update_parts(data)

    def update_digest(self, data: bytes | bytearray | memoryview) -> None:
        """The digest's half of `update`, for a thread of its own."""
        self._whole.update(data)

    def update_parts(self, data: bytes | bytearray | memoryview) -> None:
        """The half of `update` that hashes each MiB, for another thread."""
        view = memoryview(data)
        at = 0
        while at < len(view):
            room = CHECK_SPAN_BYTES - self.size % CHECK_SPAN_BYTES
            piece = view[at : at + room]
            self._partial.update(piece)
            at += len(piece)
            self.size += len(piece)
            if len(piece) == room:
                self._full.append(self._partial.digest())
                self._partial = blake3()

    def digest(self) -> Digest:
        return Digest(f"{self.algorithm}:{self._whole.hexdigest()}")

    def per_mib(self) -> bytes:
        """The BLAKE3 digests of each MiB so far, the last one of what there is of it."""
        full = b"".join(self._full)
        return full + self._partial.digest() if self.size % CHECK_SPAN_BYTES else full

    def copy(self) -> "ContentHashes":
        copied = ContentHashes(self.algorithm)
        copied.size = self.size
        copied._whole = self._whole.copy()
        copied._full = list(self._full)
        copied._partial = self._partial.copy()
        return copied

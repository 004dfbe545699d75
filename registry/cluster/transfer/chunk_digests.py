"""Digests of the MiBs of a content (BLAKE3), as its holders state them.

A range cannot be compared with the digest of the whole content. A holder took the digests of the MiBs when it compared
the whole content with its digest. Its statement carries the MAC of a member, and members trust each other
(docs/concepts/security.md). Statements of several holders must agree: where they do not, none is believed.
"""

from blake3 import blake3

DIGEST_BYTES = 32


class ChunkDigests:
    """The digests of the MiBs of one content, and the instances that have stated them."""

    def __init__(self) -> None:
        self._digests = b""
        self._stated_by: set[str] = set()
        self.is_disputed = False
        """True once two holders have stated different digests."""

    @property
    def size_bytes(self) -> int:
        """Memory of the digests; 0 as long as none has been stated."""
        return len(self._digests)

    def is_stated_by(self, instance: str) -> bool:
        return instance in self._stated_by

    def state(self, instance: str, digests: bytes) -> bool:
        """Take the statement of an instance. Return whether it agrees with the earlier ones."""
        if self._digests and digests != self._digests:
            self.is_disputed = True
            return False
        self._digests = digests
        self._stated_by.add(instance)
        return True

    def matches(self, mib: int, data: bytes) -> bool:
        """Return whether a MiB is right."""
        return blake3(data).digest() == self._digests[mib * DIGEST_BYTES : (mib + 1) * DIGEST_BYTES]

"""Pass-through: sending content that has no room on this disk from its holder to one reader, without storing it.

The content is hashed as it streams. The reader gets bytes as they arrive, except for the last piece: that waits until
the digest of the whole matches, so that no answer with unverified bytes ends cleanly. A range cannot be verified alone,
so all of the content is received for it and the rest is discarded. Several readers cost a transfer each.
"""

import asyncio

from registry.storage.checks import ContentHashes

AHEAD = 8
"""Pieces received before the reader takes them."""


class PassThroughSink:
    """The target of a transfer in the place of an `Ingest`: bytes go to the reader instead of the disk."""

    def __init__(self, checks: ContentHashes) -> None:
        """Continue after the bytes that `checks` already covers."""
        self.checks = checks
        self.size = checks.size
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

    async def write(self, data: bytes) -> None:
        """Wait for the reader."""
        self.checks.update(data)
        self.size += len(data)
        await self._pieces.put(data)

    async def end(self) -> None:
        """Signal the end of the content."""
        await self._pieces.put(b"")

    async def next(self) -> bytes:
        """Return the next piece, empty at the end."""
        return await self._pieces.get()

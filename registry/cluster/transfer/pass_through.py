"""Content that has no room on this disk: passed through from a holder to one reader, and kept nowhere.

It is hashed as it streams. What is asked for is given out as it comes, but for its last piece: that waits until the
digest of the whole is right, so that no reader gets a clean end to what was never checked. A part cannot be checked
alone, so all of the content is received for it, what lies outside of it is thrown away, and several readers cost a
transfer each: slow, and right, where there was an error before.
"""

import asyncio

from registry.storage.checks import Checks

AHEAD = 8
"""Pieces received before the reader takes them."""


class PassThroughSink:
    """Stands where an `Ingest` does in a transfer: what is written goes to the reader instead of the disk."""

    def __init__(self, checks: Checks) -> None:
        """Goes on behind what is in `checks` already."""
        self.checks = checks
        self.size = checks.size
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(AHEAD)

    async def write(self, data: bytes) -> None:
        """Waits for the reader."""
        self.checks.update(data)
        self.size += len(data)
        await self._pieces.put(data)

    async def end(self) -> None:
        """Nothing more will come."""
        await self._pieces.put(b"")

    async def next(self) -> bytes:
        """The next piece, empty at the end."""
        return await self._pieces.get()

"""Request bodies that are forwarded to another instance, and may have to be sent again."""

from collections.abc import AsyncIterator

from registry.units import KIB

REPEATABLE_BYTES = 256 * KIB


class RepeatableBody:
    """A body on its way to another instance. Its beginning is read before any of it is sent, and can be sent again.

    What follows cannot: a transfer that is cancelled while it waits for more of the body ends the iterator, and a
    reader that goes on would take the part that had arrived for the whole body.
    """

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._beginning = bytearray()
        """Not a list of pieces: a body that arrives byte by byte would take many times its size."""
        self._rest = body
        self._is_whole = True
        self.is_sent = False
        """True if any of the body was sent."""
        self.is_repeatable = True
        """True if `pieces` can be called once more."""

    async def read_beginning(self) -> None:
        """Read the beginning of the body. Raises ClientGone, after which what was read is dropped: sent now, it would
        arrive after the client's request for the size of the upload."""
        while len(self._beginning) < REPEATABLE_BYTES and (piece := await anext(self._rest, None)) is not None:
            self._beginning += piece
        self._is_whole = len(self._beginning) < REPEATABLE_BYTES

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the whole body. Raises ClientGone where the client disconnects."""
        if self._beginning:
            self.is_sent = True
            yield bytes(self._beginning)
        if not self._is_whole:
            self.is_repeatable = False
            self._beginning.clear()
            async for piece in self._rest:
                yield piece

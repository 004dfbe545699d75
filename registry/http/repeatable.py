"""A body that goes on to another instance, and may have to go again."""

from collections.abc import AsyncIterator

REPEATABLE_BYTES = 256 * 1024


class RepeatableBody:
    """A body on its way to another instance. Its beginning is read before any of it is sent, and can be sent again.

    A transfer that fails while it waits for more of the body ends that for good, as iterators are: what came up to then
    would be taken for all of it.
    """

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._beginning: list[bytes] = []
        self._rest = body
        self._is_whole = True
        self.is_sent = False
        """Whether any of it was."""
        self.is_repeatable = True
        """Whether `pieces` can be asked for once more."""

    async def read_beginning(self) -> None:
        """Raises ClientGone. What came before that is dropped: sent now, it would arrive behind the client's question
        how much there is."""
        size = 0
        while size < REPEATABLE_BYTES and (piece := await anext(self._rest, None)) is not None:
            self._beginning.append(piece)
            size += len(piece)
        self._is_whole = size < REPEATABLE_BYTES

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it. Raises ClientGone where the client left."""
        for piece in self._beginning:
            self.is_sent = True
            yield piece
        if not self._is_whole:
            self.is_repeatable = False
            async for piece in self._rest:
                yield piece

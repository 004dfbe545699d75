"""Turns at something that few may do at once, in rotation over the networks of clients (round-robin fair queueing).

One client with a thousand requests delays another one by a single turn. A client that gets no turn in time is told
when to try again: a queue that grows serves no request in time.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from registry.errors import TooManyLogins

AT_ONCE = 2
WAIT_S = 2.0
MAX_WAITING = 256
"""The most waiting requests of one network: more would not get a turn in time."""

_Turn = asyncio.Future[None]


class FairTurns:
    """The turns of one process."""

    def __init__(self) -> None:
        self._free = AT_ONCE
        self._waiting: OrderedDict[str, deque[_Turn]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, network: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises TooManyLogins."""
        await self._take(network)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, network: str) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        queue = self._waiting.setdefault(network, deque())
        if len(queue) >= MAX_WAITING:
            raise TooManyLogins
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:
            self._give_up(network, turn)
            if isinstance(error, TimeoutError):
                raise TooManyLogins from None
            raise

    def _give_up(self, network: str, turn: _Turn) -> None:
        if turn.done() and not turn.cancelled():
            self._pass_on()  # it came at the same moment
        elif (queue := self._waiting.get(network)) is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[network]

    def _pass_on(self) -> None:
        """Give a turn that has ended to the next network."""
        while self._waiting:
            network, queue = next(iter(self._waiting.items()))
            turn = queue.popleft()
            if queue:
                self._waiting.move_to_end(network)
            else:
                del self._waiting[network]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

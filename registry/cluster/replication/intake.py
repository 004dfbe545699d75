"""Taking frames from the bus without letting strangers take the event loop.

Redis has no authority: whoever can publish there can send any number of frames that are forged, or recorded and sent
again. Each costs its MAC at least. So the time that goes to frames that bring nothing is a bounded share of the loop's.
Beyond it frames wait, in a bounded queue; what is lost for that is found out over HTTP, as whenever the bus is away.
Genuine frames are not charged; but they, too, give way to the loop's other work every millisecond.
"""

import asyncio
from collections.abc import Awaitable, Callable

from registry.event_loop.share import LoopShare
from registry.ports import Bus, Clock

WORTHLESS_SHARE = 0.2
"""Of the event loop: some 30,000 forged frames a second, and a request is a quarter slower meanwhile."""
TURN_S = 0.001
"""For how long frames are taken without the loop's other work having its turn."""
STRANGERS_PER_S = 200
"""Changes whose sender is no known member: a newcomer whose first heartbeat is still on its way, or a removed member
whose recorded frames cost a transaction each time they are sent again. What is dropped comes by anti-entropy."""


class Intake:
    """One process's reading of the bus."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._worthless = LoopShare(WORTHLESS_SHARE)
        self._second = 0
        self._strangers = 0

    async def run(self, receive: Callable[[bytes], Awaitable[bool]]) -> None:
        """Hand over each frame, for ever. `receive` answers whether it brought anything, and waits only if it did."""
        turn_at = self._clock.steady_s()
        async for data in self._bus.listen():
            begun_at = self._clock.steady_s()
            brought = await receive(data)
            now = self._clock.steady_s()
            rest_s = 0.0 if brought else self._worthless.charge(now - begun_at, now)
            if rest_s or now - turn_at > TURN_S:
                await asyncio.sleep(rest_s)
                turn_at = self._clock.steady_s()

    def admits_stranger(self) -> bool:
        """Return whether one more change of a sender that is not a known member is accepted in this second."""
        second = int(self._clock.steady_s())
        if second != self._second:
            self._second, self._strangers = second, 0
        self._strangers += 1
        return self._strangers <= STRANGERS_PER_S

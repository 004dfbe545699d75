"""Taking frames from the bus without letting strangers occupy the event loop.

Redis has no authority: every client that can publish there can send any number of frames that are forged, or recorded
and sent again. Each costs at least the check of its MAC. So frames that bring nothing get a bounded share of the loop's
time. Beyond that, frames wait in a bounded queue. Anti-entropy brings what overflows, as it does while the bus is away.
Genuine frames are not charged, but they, too, yield to the loop's other work every millisecond.
"""

import asyncio
from collections.abc import Awaitable, Callable

from registry.event_loop.share import LoopShare
from registry.ports import Bus, Clock

WORTHLESS_SHARE = 0.2
"""Share of the event loop: some 30,000 forged frames a second, and a request is a quarter slower meanwhile."""
TURN_S = 0.001
"""Seconds for which frames are taken before the loop's other work has its turn."""
STRANGERS_PER_S = 200
"""Number of changes a second from senders that are no known members: a newcomer whose first heartbeat is still on its
way, or a removed member whose recorded frames cost a transaction each time they are sent again. Anti-entropy brings the
changes that are dropped."""


class Intake:
    """One process's reading of the bus."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._worthless = LoopShare(WORTHLESS_SHARE)
        self._second = 0
        self._strangers = 0

    async def run(self, receive: Callable[[bytes], Awaitable[bool]]) -> None:
        """Hand over each frame, for ever. `receive` returns whether the frame brought anything, and waits only if it
        did."""
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

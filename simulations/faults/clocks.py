"""Wall clocks that are wrong."""

import asyncio
import random

from simulations.faults.target import FaultTarget, one_of


async def clock_jump(target: FaultTarget, rng: random.Random) -> None:
    """A wall clock shows another time: seconds, hours or ten years off."""
    if node := one_of(target, rng):
        node.clock_offset_s += rng.choice((-1, 1)) * rng.choice((5, 3600, 10 * 365 * 86400))
        target.disturbances.fired("clock jump")


async def clock_drift(target: FaultTarget, rng: random.Random) -> None:
    """A wall clock goes too fast or too slow."""
    if node := one_of(target, rng):
        node.clock_rate = rng.choice((0.5, 0.99, 1.01, 3.0))
        target.disturbances.fired("clock drift")


async def clock_stands_still(target: FaultTarget, rng: random.Random) -> None:
    """A wall clock does not move for a while."""
    if node := one_of(target, rng):
        node.stop_clock(True)
        await asyncio.sleep(2 + 5 * rng.random())
        node.stop_clock(False)
        target.disturbances.fired("clock stands still")

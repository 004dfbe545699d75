"""Wall clocks that are wrong."""

import asyncio
import random

from simulations.faults.stage import Stage, one_of


async def clock_jump(stage: Stage, drawn: random.Random) -> None:
    """A wall clock shows another time: seconds, hours or ten years off."""
    if node := one_of(stage, drawn):
        node.clock_offset_s += drawn.choice((-1, 1)) * drawn.choice((5, 3600, 10 * 365 * 86400))
        stage.fired("clock jump")


async def clock_drift(stage: Stage, drawn: random.Random) -> None:
    """A wall clock goes too fast or too slow."""
    if node := one_of(stage, drawn):
        node.clock_rate = drawn.choice((0.5, 0.99, 1.01, 3.0))
        stage.fired("clock drift")


async def clock_stands_still(stage: Stage, drawn: random.Random) -> None:
    """A wall clock does not move for a while."""
    if node := one_of(stage, drawn):
        node.stop_clock(True)
        await asyncio.sleep(2 + 5 * drawn.random())
        node.stop_clock(False)
        stage.fired("clock stands still")

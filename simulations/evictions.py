"""Making room on disks in simulated clusters: contents of some hundred bytes, and budgets to match.

Contents go from a fifth of the budget on, so that there is much to evict and pushes are rarely refused for want of
room.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import registry.cluster.placement.eviction as evict
from registry.cluster.placement.eviction import Evictor
from registry.units import GIB
from simulations.process import PROCESS, outside_processes

BUDGET_BYTES = 3000
BUDGET_GIB = (BUDGET_BYTES + 0.5) / GIB
REFUSED = "disk budget is used up"
SHARES = (("CHECK_INTERVAL_S", 0.5), ("MAX_BACKOFF_S", 5.0), ("HIGH", 0.2), ("LOW", 0.15), ("PAGE", 2))


@contextlib.contextmanager
def watched(told: Callable[[str, str, float], None]) -> Iterator[None]:
    """Report every content that is evicted: the instance, the digest, and when that began to be decided."""
    original = Evictor._evict

    async def evicting(self: Evictor, one: Any) -> bool:
        begun_s = asyncio.get_running_loop().time()
        removed = await original(self, one)
        process = PROCESS.get()
        if removed and process is not None:
            outside_processes(lambda: told(process.name, one.digest, begun_s))
        return removed

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Evictor, "_evict", evicting))
        for name, value in SHARES:
            stack.enter_context(patch.object(evict, name, value))
        yield

"""Making room on disks in simulated clusters: contents of some hundred bytes, and budgets to match.

Contents go from a fifth of the budget on, so that there is much to evict and pushes are rarely refused for want of
room.
"""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import registry.cluster.placement.eviction as evict
from registry.units import GIB

BUDGET_BYTES = 3000
BUDGET_GIB = (BUDGET_BYTES + 0.5) / GIB
REFUSED = "disk budget is used up"
SHARES = (("CHECK_INTERVAL_S", 0.5), ("MAX_BACKOFF_S", 5.0), ("HIGH", 0.2), ("LOW", 0.15), ("PAGE", 2))
"""Constants of `eviction`, and what they are in a run with a disk budget."""


@contextlib.contextmanager
def eager(evicts: bool) -> Iterator[None]:
    """The watermarks and intervals of a run."""
    with contextlib.ExitStack() as stack:
        for name, value in SHARES if evicts else ():
            stack.enter_context(patch.object(evict, name, value))
        yield

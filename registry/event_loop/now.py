"""The steady clock of the running event loop: for deadlines and intervals within one process.

It has no relation to the wall clock, which `ports.Clock.now_ms` reads. Under simulation it is virtual time.
"""

import asyncio


def now_s() -> float:
    """Return the time of the running event loop, in seconds."""
    return asyncio.get_running_loop().time()

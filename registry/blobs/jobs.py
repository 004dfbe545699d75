"""Blocking disk work, off the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from registry.errors import StorageFailed

T = TypeVar("T")


async def in_executor(job: Callable[[], T]) -> T:
    """Run one blocking disk job in the loop's executor. Raises StorageFailed for what the disk refuses."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, job)
    except OSError as error:
        raise StorageFailed("the disk failed", {"reason": error.strerror or str(error)}) from error

"""Blocking disk work, off the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from registry.disk_errors import storage_failure

T = TypeVar("T")


async def in_executor(job: Callable[[], T]) -> T:
    """Run one blocking disk job in the loop's executor. Raises StorageFailed for what the disk refuses."""
    try:
        return await asyncio.get_running_loop().run_in_executor(None, job)
    except OSError as error:
        raise storage_failure("the disk failed", error) from error

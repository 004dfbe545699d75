"""Background tasks that begin again when they fail."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from registry.errors import StorageFailed

log = logging.getLogger("concord.cluster")

RESTART_S = 1.0
"""So that a task that fails at once does not fill the log."""


async def run_supervised(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task to its end, if it has one, and begin it again when it fails."""
    while True:
        try:
            return await work()
        except StorageFailed as error:
            log.error("%s; trying again", error)
        except Exception:
            log.exception("a background task failed and is begun again")
        await asyncio.sleep(RESTART_S)

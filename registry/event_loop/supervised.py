"""Background tasks that restart when they fail."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from registry.errors import StorageFailed
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

RESTART_S = 1.0
"""A pause, so that a task that fails at once does not fill the log."""


async def run_supervised(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a task to its end, if it has one, and restart it when it fails."""
    while True:
        try:
            return await work()
        except StorageFailed as error:
            log.error(LogEvent.BACKGROUND_TASK_FAILED, "%(error)s; trying again", error=error)
        except Exception:
            log.exception(LogEvent.BACKGROUND_TASK_FAILED, "a background task failed and is begun again")
        await asyncio.sleep(RESTART_S)

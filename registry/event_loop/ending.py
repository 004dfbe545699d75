"""Cancelling tasks until they end.

One cancellation is not always enough: if it meets the completion of the awaited operation, `asyncio.wait_for` of Python
3.11, and libraries that use it, return the result and lose the cancellation. A task with an endless loop then goes on,
and a caller that waits for its end waits for ever.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord")

CANCEL_INTERVAL_S = 0.5
"""A task is cancelled again after this time: longer than tasks take to end in order, and well below the time that an
instance has for ending (`runtime.drain.EXIT_TIMEOUT_S`)."""


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and again, until all have ended."""
    under_way = {task for task in tasks if not task.done()}
    for task in under_way:
        task.cancel()
    while under_way:
        _, under_way = await asyncio.wait(under_way, timeout=CANCEL_INTERVAL_S)
        for task in under_way:
            log.debug(
                LogEvent.TASK_CANCELLATION_REPEATED,
                "%(task)r goes on after it was cancelled, and is cancelled again",
                task=task,
            )
            task.cancel()

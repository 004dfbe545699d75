"""An asyncio event loop on virtual time.

Time stands still while anything can run and jumps to the next timer when nothing can, so a month passes in
milliseconds. Nothing waits for the outside: there is no selector and there are no threads; what the registry hands to
the executor runs at once, or after a drawn delay, on the loop itself.

Everything that happens is a function of the seed. Sets of tasks iterate in the order of their hashes, so tasks hash by
a number of their own.
"""

import asyncio
import heapq
import itertools
from asyncio import base_events
from collections.abc import Callable, Coroutine
from typing import Any

from simulations.life import LivingHandle, LivingTimer

RESOLUTION_S = 1e-6  # finer ones do not survive addition to large times, and the loop would spin


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    _numbers = itertools.count()

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(self._numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _NoSelector:
    """Stands where the selector would: waiting is a jump in time."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stuck("nothing can run, and no timer is set")
        if timeout > 0:
            self._loop.now += timeout
        return []

    def close(self) -> None:
        pass


class Stuck(Exception):
    """Nothing can ever happen again."""


class VirtualLoop(base_events.BaseEventLoop):
    """One world's loop. `executor_delay_s` draws how long a job in the executor takes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.executor_delay_s: Callable[[], float] = lambda: 0.0
        self._selector = _NoSelector(self)
        self._clock_resolution = RESOLUTION_S
        self._ready: Any
        self._scheduled: Any
        self.set_task_factory(_numbered_task)  # type: ignore[arg-type]
        NumberedTask._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run a blocking job now, and let its result be known a moment later."""
        future = self.create_future()
        try:
            result, error = func(*args), None
        except Exception as raised:
            result, error = None, raised
        self.call_later(self.executor_delay_s(), _settle, future, result, error)
        return future

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = LivingHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = LivingTimer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Generators that are forgotten are not closed: when the collector finds them is no function of the seed."""

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _numbered_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> NumberedTask:
    return NumberedTask(work, loop=loop, **options)


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

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

from simulations.process import PROCESS, ProcessHandle, ProcessTimer

RESOLUTION_S = 1e-6  # finer ones do not survive addition to large times, and the loop would spin
MOST_AT_ONCE_S = 86_400.0
MANY_TIMERS = 100
CANCELLED_SHARE = 0.5


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


class Stuck(Exception):
    """Nothing can ever happen again."""


class _Due(float):
    """When a timer is due. Timers are ordered by these, since floats are compared faster than anything of ours."""

    __slots__ = ("timer",)

    timer: ProcessTimer


class VirtualLoop(base_events.BaseEventLoop):
    """The event loop of one run. `executor_delay_s` draws how long a job in the executor takes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.executor_delay_s: Callable[[], float] = lambda: 0.0
        self._ready: Any
        self._stopping: bool
        self._timer_cancelled_count: int
        self._scheduled: Any
        self.set_task_factory(_numbered_task)  # type: ignore[arg-type]
        NumberedTask._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> "asyncio.Future[Any]":
        """Run a blocking job now, or when a disk that stalls lets it, and let its result be known a moment later."""
        future = self.create_future()
        process = PROCESS.get()

        def work() -> None:
            try:
                result, error = func(*args), None
            except Exception as raised:
                result, error = None, raised
            self.call_later(self.executor_delay_s(), _settle, future, result, error)

        if process is not None and process.disk_is_late_s:
            self.call_later(process.disk_is_late_s, work)
        else:
            work()
        return future

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = ProcessHandle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = ProcessTimer(when, callback, args, self, context)
        due = _Due(when)
        due.timer = timer
        heapq.heappush(self._scheduled, due)
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run one turn, in the same order as asyncio's loop, without what only a real loop needs."""
        self._forget_cancelled()
        ready, scheduled = self._ready, self._scheduled
        if not ready and not self._stopping:
            if not scheduled:
                raise Stuck("nothing can run, and no timer is set")
            if (timeout := min(scheduled[0] - self.now, MOST_AT_ONCE_S)) > 0:
                self.now += timeout
        end = self.now + RESOLUTION_S
        while scheduled and scheduled[0] < end:
            timer = heapq.heappop(scheduled).timer
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _forget_cancelled(self) -> None:
        """Drop timers that were cancelled: from the head, and all where they are many."""
        scheduled = self._scheduled
        if len(scheduled) > MANY_TIMERS and self._timer_cancelled_count / len(scheduled) > CANCELLED_SHARE:
            scheduled[:] = [due for due in scheduled if not due.timer._cancelled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
        while scheduled and scheduled[0].timer._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled).timer._scheduled = False

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Generators that are forgotten are not closed: when the collector finds them is no function of the seed."""

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

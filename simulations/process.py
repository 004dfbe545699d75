"""A simulated process. While it lives its callbacks run; paused they wait; killed they never run again.

A kill is exact: no `finally` block runs, and no task is cancelled. A context variable that all tasks and timers inherit
tells which process they belong to.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class ProcessDied(BaseException):
    """Unwinds the callback in which an instance dies; everything else of it just never runs."""


class Process:
    """One process of an instance, with the number of its start."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.alive = True
        self.paused = False
        self.disk_is_late_s = 0.0
        """The delay of jobs in its executor, as on a disk that stalls."""
        self.on_death: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Handle] = []

    def __repr__(self) -> str:
        return f"{self.name}.{self.number}"

    def end(self) -> None:
        """Kill the process."""
        self.alive = False
        self._waiting.clear()
        for call in self.on_death:
            call()

    def check(self) -> None:
        """Raise ProcessDied in what still runs of a dead process."""
        if not self.alive:
            raise ProcessDied(repr(self))

    def part(self, name: str = "", number: int | None = None) -> "Process":
        """A process that ends with this one, and may stand still or die alone."""
        part = Process(f"{self.name} {name}".rstrip(), self.number if number is None else number)
        self.on_death.append(part.end)
        return part

    def holds_back(self, handle: asyncio.Handle) -> bool:
        """Return whether a callback must not run now. A callback of a paused process is kept for later."""
        if self.paused:
            self._waiting.append(handle)
        return self.paused or not self.alive

    def resume(self, loop: asyncio.AbstractEventLoop) -> None:
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for handle in waiting:
            if not handle.cancelled():
                loop.call_soon(handle._run, context=_no_process())


def _no_process() -> Context:
    return Context()


class ProcessHandle(asyncio.Handle):
    """A callback that runs only while its instance does. It is made some ten thousand times a run, so it is flat: what
    the classes above it do is done here."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: asyncio.AbstractEventLoop, context: Context | None) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def _run(self) -> None:
        run_handle(self)


class ProcessTimer(asyncio.TimerHandle):
    """The same for timers."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Any, args: Any, loop: asyncio.AbstractEventLoop, context: Context | None
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True

    def _run(self) -> None:
        run_handle(self)


def run_handle(handle: Any) -> None:
    """Run a callback, unless its instance does not."""
    if handle._cancelled:  # between its instance's going on and now
        return
    process = handle._context.get(PROCESS)
    if process is not None and (process.paused or not process.alive) and process.holds_back(handle):
        return
    try:
        handle._context.run(handle._callback, *handle._args)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        handle._loop.call_exception_handler({"message": "Exception in callback", "exception": error, "handle": handle})


def in_process(process: Process) -> Context:
    """Return a context in which everything belongs to `process`."""
    context = Context()
    context.run(PROCESS.set, process)
    return context


def outside_processes(work: Callable[[], Any]) -> Any:
    """Run work of the simulator from within a callback of a process."""
    return Context().run(work)

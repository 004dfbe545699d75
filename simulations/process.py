"""One start of one instance. While it lives its callbacks run; paused they wait; dead they never run again.

A kill is exact in this way: no `finally` tidies up, no task is told. What belongs to a life is known by a context
variable that all its tasks and timers inherit.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

PROCESS: ContextVar["Process | None"] = ContextVar("life", default=None)


class ProcessDied(BaseException):
    """Unwinds the callback in which an instance dies; everything else of it just never runs."""


class Process:
    """See the module."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.alive = True
        self.paused = False
        self.disk_is_late_s = 0.0
        """How much later than usual jobs of its executor are done, as on a disk that stalls."""
        self.on_death: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Handle] = []

    def __repr__(self) -> str:
        return f"{self.name}.{self.number}"

    def end(self) -> None:
        """Nothing of it happens any more."""
        self.alive = False
        self._waiting.clear()
        for call in self.on_death:
            call()

    def check(self) -> None:
        """Raises Died in what still runs of a dead instance."""
        if not self.alive:
            raise ProcessDied(repr(self))

    def part(self, name: str) -> "Process":
        """A process that ends with this one, and may stand still alone."""
        part = Process(f"{self.name} {name}", self.number)
        self.on_death.append(part.end)
        return part

    def holds_back(self, handle: asyncio.Handle) -> bool:
        """Whether a callback must not run now. One of a paused instance is kept for later."""
        if self.paused:
            self._waiting.append(handle)
        return self.paused or not self.alive

    def resume(self, loop: asyncio.AbstractEventLoop) -> None:
        self.paused = False
        waiting, self._waiting = self._waiting, []
        for handle in waiting:
            if not handle.cancelled():
                loop.call_soon(handle._run, context=_nobody())


def _nobody() -> Context:
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
    """A context in which everything belongs to `life`."""
    context = Context()
    context.run(PROCESS.set, process)
    return context


def outside_processes(work: Callable[[], Any]) -> Any:
    """Run something of the world's from within an instance's callback."""
    return Context().run(work)

"""One start of one instance. While it lives its callbacks run; paused they wait; dead they never run again.

A kill is exact in this way: no `finally` tidies up, no task is told. What belongs to a life is known by a context
variable that all its tasks and timers inherit.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

LIFE: ContextVar["Life | None"] = ContextVar("life", default=None)


class Died(BaseException):
    """Unwinds the callback in which an instance dies; everything else of it just never runs."""


class Life:
    """See the module."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.alive = True
        self.paused = False
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
            raise Died(repr(self))

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


class LivingHandle(asyncio.Handle):
    """A callback that runs only while its instance does."""

    __slots__ = ()

    def _run(self) -> None:
        life = self._context.get(LIFE)  # type: ignore[attr-defined]
        if life is None or not life.holds_back(self):
            super()._run()


class LivingTimer(asyncio.TimerHandle):
    """The same for timers."""

    __slots__ = ()

    def _run(self) -> None:
        life = self._context.get(LIFE)  # type: ignore[attr-defined]
        if life is None or not life.holds_back(self):
            super()._run()


def in_life(life: Life) -> Context:
    """A context in which everything belongs to `life`."""
    context = Context()
    context.run(LIFE.set, life)
    return context


def nobodys(work: Callable[[], Any]) -> Any:
    """Run something of the world's from within an instance's callback."""
    return Context().run(work)

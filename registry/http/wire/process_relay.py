"""The way to the other processes of this instance, for requests that one of them answers."""

from typing import Protocol

from starlette.types import Receive, Scope, Send


class ProcessRelay(Protocol):
    """The way to the other processes of this instance."""

    async def relay(self, slot: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the process in a slot answer a request, as an ASGI application. Before the answer has begun it raises
        ProcessUnreachable, and Ending at the end of a drain; after that CutOff."""


class NoOtherProcess:
    """The relay of a process that serves alone, which is the home of all uploads."""

    async def relay(self, slot: int, scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("this process serves alone: it has no other process to relay a request to")

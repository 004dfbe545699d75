"""The processes of one instance: its primary, and a worker beside it.

Each takes every second connection, and all of them while the other one stands still or is dead, as processes do that
listen on one socket. Both run the product's own applications (`registry.http.app`, `registry.http.worker_app`), and
what crosses between them goes over `simulations.process_links`. The server's manners (`http.wire.protocol`) are kept:
what has a direct answer gets it before the application is called.
"""

from collections.abc import Callable
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

from registry.http.wire.fast_path import DirectAnswer, Headers
from simulations.process import PROCESS, Process
from simulations.process_links import RELAYED


class Application(Protocol):
    """The application of one process."""

    def direct(self, method: str, target: bytes, headers: Headers) -> DirectAnswer | None:
        """Return a response by the fast path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""


OnStatus = Callable[[int], None]
"""Called with the status of an answer as it begins."""


class ProcessGroup:
    """An ASGI application, called in the process that has accepted the connection."""

    def __init__(self, on_request: Callable[[Scope], OnStatus | None]) -> None:
        """`on_request` is called with each request as it reaches a process."""
        self._on_request = on_request
        self._primary: Process | None = None
        self._worker: Process | None = None
        self._applications: dict[Process, Application] = {}
        self._connections = 0
        self.streamed = 0
        """Blobs that a worker has begun to send."""
        self.relayed = 0
        """Requests for uploads that one process has relayed to another."""

    def serve_primary(self, process: Process, application: Application) -> None:
        """Have a primary take connections from now on."""
        self._primary = process
        self._applications[process] = application

    def serve_worker(self, process: Process, application: Application) -> None:
        """Have a worker take connections from now on."""
        self._worker = process
        self._applications[process] = application

    def accepting(self) -> Process | None:
        """The process that takes the next connection; None if none lives."""
        self._connections += 1
        primary, worker = (process if process and process.alive else None for process in (self._primary, self._worker))
        if worker is None or primary is None:
            return primary or worker
        is_workers = self._connections % 2 == 1 or primary.paused
        return worker if is_workers and not worker.paused else primary

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        process = PROCESS.get()
        assert process is not None, "connections are accepted by processes"
        application, query = self._applications[process], scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        on_status = self._on_request(scope)
        direct = application.direct(scope["method"], target, scope["headers"])
        if direct is not None:
            if on_status is not None:
                on_status(direct[0])
            await _send_directly(direct, send)
            return
        relayed: list[bool] = []
        RELAYED.set(relayed)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                if on_status is not None:
                    on_status(message["status"])
                self._count(process, scope, message["status"], bool(relayed))
            await send(message)

        await application(scope, receive, watched)

    def _count(self, process: Process, scope: Scope, status: int, is_relayed: bool) -> None:
        is_blob = "/blobs/sha" in scope["path"]
        self.streamed += process is self._worker and is_blob and status in (200, 206) and not is_relayed
        self.relayed += is_relayed and "/blobs/uploads/" in scope["path"]


async def _send_directly(direct: DirectAnswer, send: Send) -> None:
    status, head, body = direct
    headers = [tuple(line.split(b": ", 1)) for line in head.splitlines()]
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""The processes of one instance: its primary, and a worker beside it.

Each takes every second connection, and all of them while the other one stands still, as processes do that listen on one
socket. The worker answers what it can, and hands every other request over to the primary with its connection, which
then waits until the primary runs. Reads that need the read lease wait for it at the worker. The server's manners
(`http.wire.protocol`, `runtime.worker`) are kept: what has a direct answer gets it before the application is called.
"""

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from registry.app import http_context
from registry.cluster.replication.read_lease import READ_WAIT_S
from registry.http.app import App
from registry.http.oci.read_only import ReadOnlyApp
from registry.http.wire.fast_path import Headers
from registry.http.wire.process_relay import NoOtherProcess
from registry.instance import Instance
from simulations.process import PROCESS, Process, in_process, outside_processes

LOOK_AGAIN_S = 0.003
"""As `runtime.worker` looks."""
Asked = tuple[str, bytes, Headers]


class ProcessGroup:
    """An ASGI application, called in the process that has accepted the connection."""

    def __init__(self, instance: Instance, reading: ReadOnlyApp, primary: Process, worker: Process) -> None:
        self._instance = instance
        self._app = App(http_context(instance, dict, NoOtherProcess()))
        self._reading = reading
        self._primary = primary
        self._worker = worker
        self._connections = 0
        self.streamed = 0
        """Blobs that the worker has begun to send."""

    def accepting(self) -> Process:
        """The process that takes the next connection."""
        self._connections += 1
        workers_begin = self._instance.cluster.answers_clients.is_set()
        is_workers = workers_begin and (self._connections % 2 == 1 or self._primary.paused)
        return self._worker if is_workers and not self._worker.paused else self._primary

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"]
        asked = scope["method"], scope["raw_path"] + (b"?" + query if query else b""), scope["headers"]
        if PROCESS.get() is self._primary:
            await self._answer(asked, scope, receive, send)
        elif not await self._read(asked, scope, receive, send):
            await self._hand_over(asked, scope, receive, send)

    async def _answer(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """In the primary."""
        direct = self._app.direct(*asked)
        if direct is not None:
            await _send_directly(direct, send)
        else:
            await self._app(scope, receive, send)

    async def _read(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> bool:
        """In the worker. Return whether it has answered."""
        try:
            if not await self._has_lease(asked[0]):
                await _refuse(send)
                return True
            direct = self._reading.direct(*asked)
            stream = self._reading.stream(*asked) if direct is None else None
            if direct is not None:
                await _send_directly(direct, send)
            elif stream is not None:
                self.streamed += 1
                await self._reading.serve(stream, scope, receive, send)
            return direct is not None or stream is not None
        finally:
            self._tell_primary(self._note)

    async def _has_lease(self, method: str) -> bool:
        """Wait for the read lease where a request needs it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + READ_WAIT_S
        if method not in ("GET", "HEAD") or self._reading.lease.allows_read():
            return True
        self._tell_primary(self._instance.cluster.site_lease.request_renewal)
        while not self._reading.lease.allows_read():
            if loop.time() > until:
                return False
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    def _tell_primary(self, what: Callable[[], None]) -> None:
        """Have the primary do something as soon as it runs."""
        outside_processes(lambda: asyncio.get_running_loop().call_soon(what, context=in_process(self._primary)))

    def _note(self) -> None:
        """In the primary: learn what the worker has noted."""
        self._instance.take_worker_notes(self._reading.used, self._reading.corrupt)
        self._reading.used.clear()
        self._reading.corrupt.clear()

    async def _hand_over(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()

        async def work() -> None:
            try:
                await self._answer(asked, scope, receive, send)
            except Exception as error:
                over.set_exception(error)
            else:
                over.set_result(None)

        outside_processes(lambda: loop.create_task(work(), context=in_process(self._primary)))
        await over


async def _send_directly(direct: tuple[bytes, bytes], send: Send) -> None:
    head, body = direct
    headers = [tuple(line.split(b": ", 1)) for line in head.splitlines()]
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _refuse(send: Send) -> None:
    """As `runtime.worker` does for want of a primary."""
    headers = [(b"retry-after", b"2"), (b"content-length", b"0")]
    start: Message = {"type": "http.response.start", "status": 503, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": b"", "more_body": False})

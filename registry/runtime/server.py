"""uvicorn, as this product uses it."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from registry.http.wire.protocol import BoundedProtocol
from registry.http.wire.request import CUT_OFF
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord")

KEEP_ALIVE_TIMEOUT_S = 90  # longer than the 60 to 75 s after which balancers close idle connections themselves
LINGER_S = 0.3
"""Time for which connections are kept after the listener has closed: a request may be on its way on them."""
POLL_INTERVAL_S = 0.01
ABORT_TIMEOUT_S = 0.5
"""Time that aborted requests have to answer their clients."""


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, since there may be two servers, and with an orderly end."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
            )
        )
        self._adopting: set[asyncio.Task[None]] = set()
        self._finishes_until: float | None = None
        self._drain_s = 0.0
        self.has_lingered = asyncio.Event()
        """Set when the server ends and no further request comes."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def finish_by(self, until: float, drain_s: float) -> None:
        """Cut requests off that are under way at that time of the loop, once the server is to end. Without this they
        may take as long as they do. `drain_s` is the length of the drain, for the log."""
        self._finishes_until, self._drain_s = until, drain_s

    def _adopt(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted at the end."""
        task = asyncio.create_task(self._connect(connection))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        make = partial(
            BoundedProtocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            closes_after_response=True,
        )
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        except OSError:
            connection.close()  # the client has gone meanwhile

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order. uvicorn would reset connections that were not accepted yet, and close those that are idle,
        on which the next request may be on its way: its client could not know whether it was carried out."""
        still_listening = [listening.dup() for listening in sockets or []]
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        for listening in still_listening:
            for accepted in _accept_all_and_close(listening):
                self._adopt(accepted)
        await self._linger()
        while self._adopting:
            await asyncio.gather(*self._adopting)
        await asyncio.sleep(0)  # what had come on them before is being answered
        self.has_lingered.set()
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        """Cut requests off that do not end in time. uvicorn's own way logs a stack trace for each of them, and does not
        wait until they have answered."""
        try:
            async with asyncio.timeout_at(self._finishes_until):
                await super()._wait_tasks_to_complete()
        except TimeoutError:
            under_way = list(self.server_state.tasks)
            log.warning(
                LogEvent.REQUESTS_ABORTED,
                "%(requests)d requests did not end within %(drain_s)g s and are cut off",
                requests=len(under_way),
                drain_s=self._drain_s,
            )
            for task in under_way:
                task.cancel(CUT_OFF)
            if under_way:
                await asyncio.wait(under_way, timeout=ABORT_TIMEOUT_S)

    async def _linger(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not self.force_exit:
            for connection in list(self.server_state.connections):
                cast(BoundedProtocol, connection).close_after_response()
            is_used = self.server_state.connections or self._adopting
            if loop.time() - begun >= LINGER_S or not is_used:
                return
            await asyncio.sleep(POLL_INTERVAL_S)


def _accept_all_and_close(listening: socket.socket) -> list[socket.socket]:
    """Accept all pending connections, then close the listener. A connection that arrives between the two is reset."""
    accepted = []
    with contextlib.suppress(OSError):
        while True:
            accepted.append(listening.accept()[0])
    listening.close()
    for connection in accepted:
        connection.setblocking(False)
    return accepted

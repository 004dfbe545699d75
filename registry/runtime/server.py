"""uvicorn, as this product uses it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from registry.http.failures import log_aborted
from registry.http.wire.protocol import BoundedProtocol
from registry.http.wire.request import CUT_OFF
from registry.http.wire.tls_transport import CLOSE_NOTIFY_TIMEOUT_S
from registry.runtime.certificates import ReloadedTls
from registry.runtime.connections import ConnectionCounts, OpenConnections, SharedListener
from registry.storage.upload_homes import PRIMARY_SLOT, ProcessSlot
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord")

KEEP_ALIVE_TIMEOUT_S = 90  # longer than the 60 to 75 s after which balancers close idle connections themselves
HANDSHAKE_TIMEOUT_S = 10.0
"""Time that a client has for the handshake of TLS."""
HANDSHAKE_AT_END_S = 0.5
"""The same for a client that connects when the server ends."""
LINGER_S = 0.3
"""Time for which connections are kept after the listener has closed: a request may be on its way on them."""
POLL_INTERVAL_S = 0.01
ABORT_TIMEOUT_S = 0.5
"""Time that aborted requests have to answer their clients."""


class Server(uvicorn.Server):
    """uvicorn's server of one of the processes that may listen on the same socket (`runtime.connections`): without its
    signal handlers, since there may be two servers, and with TLS that is read again and an orderly end."""

    def __init__(self, app: Any, counts: ConnectionCounts, slot: ProcessSlot, tls: ReloadedTls | None) -> None:
        """`tls` is None for plain HTTP."""
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
        self._counts = counts
        self._slot = slot
        self._tls = tls
        self._removals = 0
        """The number of removals of authorities after which all connections were looked at."""
        self._connecting: set[asyncio.Task[None]] = set()
        if slot.number != PRIMARY_SLOT:
            self.server_state.connections = OpenConnections(counts, slot.number)
            self._connecting = OpenConnections(counts, slot.number)
        self.finishes_until: float | None = None
        """The time of the loop until which requests may go on, once the server is to end; None as long as they take."""
        self.drain_s = 0.0
        self.has_lingered = asyncio.Event()
        """Set when the server ends and no further request comes."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def finish_by(self, until: float, drain_s: float) -> None:
        """Cut requests off that are under way at that time of the loop, once the server is to end. `drain_s` is the
        length of the drain, for the log."""
        self.finishes_until, self.drain_s = until, drain_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        if self._slot.number != PRIMARY_SLOT:
            self._counts.set(self._slot.number, 0)
        on_connection = partial(self._serve_connection, is_last=False)
        listeners = [SharedListener(one, self._counts, self._slot, on_connection) for one in sockets or []]
        self.servers = cast(Any, listeners)  # they are closed as servers are, and nothing else

    async def on_tick(self, counter: int) -> bool:
        if self._tls is not None and self._tls.removals != self._removals:
            self._removals = self._tls.removals
            for connection in list(self.server_state.connections):
                cast(BoundedProtocol, connection).end_identity()
        return await super().on_tick(counter)

    def _serve_connection(self, connection: socket.socket, is_last: bool) -> None:
        """Serve a connection that was accepted here, for one request if it is among the last ones."""
        task = asyncio.create_task(self._connect(connection, is_last))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket, is_last: bool) -> None:
        make = partial(
            BoundedProtocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            closes_after_response=is_last,
        )
        tls, options = self._tls, dict[str, Any]()
        if tls is not None:
            options["ssl"] = tls.accepting
            options["ssl_handshake_timeout"] = HANDSHAKE_TIMEOUT_S
            options["ssl_shutdown_timeout"] = CLOSE_NOTIFY_TIMEOUT_S
        removals = tls.removals if tls is not None else 0
        try:
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(make, connection, **options)
        except OSError as error:
            connection.close()  # the client has gone meanwhile, or its handshake has failed
            if isinstance(error, ssl.SSLError):
                log.debug(LogEvent.TLS_HANDSHAKE_FAILED, "a handshake of TLS has failed: %(error)s", error=error)
            return
        if tls is not None and tls.removals != removals:
            protocol.end_identity()

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
                self._serve_connection(accepted, is_last=True)
        await self._linger()
        await self._finish_handshakes()
        await asyncio.sleep(0)  # what had come on them before is being answered
        self.has_lingered.set()
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        """Cut requests off that do not end in time. uvicorn's own way logs a stack trace for each of them, and does not
        wait until they have answered."""
        try:
            async with asyncio.timeout_at(self.finishes_until):
                await super()._wait_tasks_to_complete()
        except TimeoutError:
            under_way = list(self.server_state.tasks)
            log_aborted(len(under_way), self.drain_s)
            for task in under_way:
                task.cancel(CUT_OFF)
            if under_way:
                await asyncio.wait(under_way, timeout=ABORT_TIMEOUT_S)

    async def _finish_handshakes(self) -> None:
        """Wait until each connection is served, or closed where its client takes long."""
        if self._connecting:
            _, late = await asyncio.wait(set(self._connecting), timeout=HANDSHAKE_AT_END_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _linger(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not self.force_exit:
            for connection in list(self.server_state.connections):
                cast(BoundedProtocol, connection).close_after_response()
            is_used = self.server_state.connections or self._connecting
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

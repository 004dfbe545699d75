"""uvicorn, as this product uses it."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from registry.http.protocol import BoundedProtocol

KEEP_ALIVE_S = 90  # longer than the 60 to 75 s after which balancers close idle connections themselves


class Server(uvicorn.Server):
    """Leaves signals to us, since there may be two servers; and takes connections that somebody else has accepted."""

    def __init__(self, app: Any, protocol: Callable[..., BoundedProtocol] = BoundedProtocol) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type]  # it is only called
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        self._adopting: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def adopt(self, connection: socket.socket, data: bytes) -> None:
        """Serve a connection on which `data` has come already."""
        task = asyncio.create_task(self._adopt(connection, data))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, connection: socket.socket, data: bytes) -> None:
        make = partial(
            BoundedProtocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            received=data,
        )
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        except OSError:
            connection.close()  # the client has gone meanwhile

"""A plain round-robin load balancer: every request goes to the next server, on a new connection."""

import asyncio
import threading
from collections.abc import Sequence
from itertools import cycle

from tests.support.client import Client
from tests.support.server import free_port

HEAD_BYTES = 64 * 1024
TLS_HELLO = b"\x16"


class RoundRobin:
    """Use as a context manager. Runs an event loop in a thread of its own."""

    def __init__(self, addresses: Sequence[str], host: str = "127.0.0.1") -> None:
        self._backends = cycle([(address.rpartition(":")[0], int(address.rpartition(":")[2])) for address in addresses])
        self.host = host
        self.port = free_port()
        self.address = f"{host}:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def client(self) -> Client:
        return Client(self.host, self.port)

    def __enter__(self) -> "RoundRobin":
        self._thread.start()
        serving = asyncio.start_server(self._serve, self.host, self.port, limit=HEAD_BYTES)
        asyncio.run_coroutine_threadsafe(serving, self._loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, and the end of both connections."""
        try:
            first = await reader.readexactly(1)
            if first == TLS_HELLO:  # clients try TLS before they do without
                return
            head = first + await reader.readuntil(b"\r\n\r\n")
            lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
            upstream_reader, upstream_writer = await asyncio.open_connection(*next(self._backends))
            upstream_writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
            sending = asyncio.ensure_future(_pump(reader, upstream_writer))
            await _pump(upstream_reader, writer)
            sending.cancel()
            upstream_writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass

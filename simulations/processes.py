"""The processes of one instance: its owner, and a reader beside it, at which every second request arrives.

What a reader does not answer goes to the owner with its connection, so here the owner answers it. The server's manners
(`http.protocol`) are kept: what has a direct answer gets it before the application is called.
"""

from starlette.types import Message, Receive, Scope, Send

from registry.http.app import App
from registry.http.direct import Headers
from registry.http.reading import Reading
from registry.instance import Instance


class Processes:
    """See the module: an ASGI application."""

    def __init__(self, instance: Instance, reading: Reading) -> None:
        self._instance = instance
        self._app = App(instance)
        self._reading = reading
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"]
        asked = scope["method"], scope["raw_path"] + (b"?" + query if query else b""), scope["headers"]
        self._requests += 1
        reads = self._requests % 2 and self._instance.cluster.answers_clients.is_set()  # readers begin then
        if reads and await self._read(asked, scope, receive, send):
            return
        direct = self._app.direct(*asked)
        if direct is not None:
            await _send_directly(direct, send)
        else:
            await self._app(scope, receive, send)

    async def _read(self, asked: tuple[str, bytes, Headers], scope: Scope, receive: Receive, send: Send) -> bool:
        try:
            direct = self._reading.direct(*asked)
            stream = self._reading.stream(*asked) if direct is None else None
            if direct is not None:
                await _send_directly(direct, send)
            elif stream is not None:
                await self._reading.serve(stream, scope, receive, send)
            return direct is not None or stream is not None
        finally:
            self._tell()

    def _tell(self) -> None:
        """Let the owner know what it has to."""
        self._instance.learn(self._reading.used, self._reading.damaged)
        self._reading.used.clear()
        self._reading.damaged.clear()


async def _send_directly(direct: tuple[bytes, bytes], send: Send) -> None:
    head, body = direct
    headers = [tuple(line.split(b": ", 1)) for line in head.splitlines()]
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""The processes of one instance: its owner, and a reader beside it, at which every second request arrives.

What a reader does not answer goes to the owner with its connection, so here the owner answers it. The server's manners
(`http.protocol`) are kept: what has a direct answer gets it before the application is called.
"""

import asyncio

from starlette.types import Message, Receive, Scope, Send

from registry.blobs.checked import Damaged
from registry.http.app import App
from registry.http.direct import Headers
from registry.http.reading import Reading
from registry.instance import Instance
from simulations.life import Life, in_life


class Processes:
    """See the module: an ASGI application."""

    def __init__(self, instance: Instance, reading: Reading, life: Life) -> None:
        self._instance = instance
        self._app = App(instance)
        self._reading = reading
        self._life = life
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"]
        asked = scope["method"], scope["raw_path"] + (b"?" + query if query else b""), scope["headers"]
        self._requests += 1
        if self._requests % 2 and await self._read(asked, scope, receive, send):
            return
        direct = self._app.direct(*asked)
        if direct is not None:
            await _send_directly(direct, send)
        else:
            await self._app(scope, receive, send)

    async def _read(self, asked: tuple[str, bytes, Headers], scope: Scope, receive: Receive, send: Send) -> bool:
        direct = self._reading.direct(*asked)
        if direct is not None:
            await _send_directly(direct, send)
            return True
        stream = self._reading.stream(*asked)
        if stream is None:
            return False
        try:
            await self._reading.serve(stream, scope, receive, send)
        finally:
            self._tell()
        return True

    def _tell(self) -> None:
        """Let the owner know what it has to."""
        while self._reading.used:
            self._instance.cluster.evict.used(self._reading.used.pop())
        for digest, offset in self._reading.damaged:
            mending = self._instance.cluster.contents.damaged(digest, Damaged(offset, "a reader met it"))
            asyncio.get_running_loop().create_task(mending, context=in_life(self._life))
        self._reading.damaged.clear()


async def _send_directly(direct: tuple[bytes, bytes], send: Send) -> None:
    head, body = direct
    headers = [tuple(line.split(b": ", 1)) for line in head.splitlines()]
    start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""Uploads by clients that make mistakes: wrong places, wrong digests, the same again, bodies that break off."""

import random
from collections.abc import AsyncIterator

from simulations.node import Node
from simulations.workload.client import OCTETS, Answer, Client
from simulations.workload.images import digest_of

REPOSITORY = "scratch"


class _BrokenOff(Exception):
    """A client that goes away."""


class MalformedUpload:
    """One upload with one oddity, which is otherwise brought to its end, or cancelled."""

    def __init__(self, client: Client, node: Node, rng: random.Random) -> None:
        self._client = client
        self._node = node
        self._rng = rng
        self._content = rng.randbytes(90)
        self._location = ""

    async def carry_out(self) -> None:
        begun = await self._client.ask(
            "begin upload", self._node, "POST", f"/v2/{REPOSITORY}/blobs/uploads/", repository=REPOSITORY
        )
        if begun is None or begun.status != 202:
            return
        self._location = begun.headers["location"]
        if not await self._chunk("chunk", 0, 30):
            return
        oddity = self._rng.choice((self._elsewhere, self._again, self._other_digest, self._altered, self._break_off))
        await oddity()
        await (self._cancel() if self._rng.random() < 0.4 else self._finish())

    async def _chunk(self, kind: str, first: int, end: int) -> bool:
        headers = OCTETS | {"Content-Range": f"{first}-{end - 1}"}
        answer = await self._ask(kind, "PATCH", self._content[first:end], headers)
        if answer is None or answer.status != 202:
            return False
        self._location = answer.headers["location"]
        return True

    async def _elsewhere(self) -> None:
        await self._chunk("chunk out of place", 40, 50)

    async def _again(self) -> None:
        await self._chunk("chunk out of place", 0, 30)

    async def _other_digest(self) -> None:
        await self._ask("upload of another digest", "PUT", query=f"?digest={digest_of(b'another')}")

    async def _altered(self) -> None:
        """A letter of the id is another one."""
        at = self._rng.randrange(len(self._location) - 60, len(self._location))
        letter = "0" if self._location[at] != "0" else "1"
        altered = self._location[:at] + letter + self._location[at + 1 :]
        if self._location[at] != ".":
            await self._client.ask("altered id", self._node, "PATCH", altered, b"x", OCTETS, repository=REPOSITORY)

    async def _break_off(self) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield self._content[30:40]
            raise _BrokenOff

        try:
            await self._ask("chunk broken off", "PATCH", broken(), OCTETS)
        except _BrokenOff:
            pass

    async def _cancel(self) -> None:
        cancelled = await self._ask("cancel", "DELETE")
        if cancelled is not None and cancelled.status == 204:
            await self._ask("chunk of what has ended", "PATCH", b"x", OCTETS)

    async def _finish(self) -> None:
        status = await self._ask("upload status", "GET")
        if status is None or status.status != 204:
            return
        size = int(status.headers["range"].partition("-")[2]) + 1
        query = f"?digest={digest_of(self._content)}"
        finished = await self._ask("upload", "PUT", self._content[size:], query=query, digest=query[-71:])
        if finished is not None and finished.status == 201:
            await self._ask("chunk of what has ended", "PATCH", b"x", OCTETS)

    async def _ask(
        self,
        kind: str,
        method: str,
        body: bytes | AsyncIterator[bytes] = b"",
        headers: dict[str, str] | None = None,
        query: str = "",
        digest: str = "",
    ) -> Answer | None:
        place, path = self._client.near(self._node), self._location + query
        return await self._client.ask(kind, place, method, path, body, headers, repository=REPOSITORY, digest=digest)

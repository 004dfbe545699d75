"""One upload that goes on through a whole run: a little more, or a question how far it is, every second.

Whatever is acknowledged of it is there in the end, and it can be finished: through kills of its owner, partitions, and
an exchange of the cluster's key. Only a disk that refused it, was full, put back or ran twice excuses its loss.
"""

import asyncio
import random
from collections.abc import Callable

from simulations.faults import MEMBER_FAULTS
from simulations.node import Node
from simulations.plan import Plan
from simulations.workload.client import OCTETS, Answer, Client
from simulations.workload.images import digest_of

SIZE = 600
PIECE = 50
PAUSE_S = 1.0
REPOSITORY = "app"
LOSING = {"eio", "enospc", "edquot", "failed-commit", "backup", "clone", "disk-destroyed", "new-key"}


def may_be_lost(plan: Plan) -> bool:
    """Return whether an upload may have to be begun again: it was lost, or a disk's budget was used up."""
    return loses_uploads(plan.faults) or "evict" in plan.conditions


def loses_uploads(faults: tuple[str, ...]) -> bool:
    """Return whether a disk may lose an upload, a key go before its id was renewed, since the exchange was in haste or
    its owner was away meanwhile, or its owner be no member any more."""
    return bool((LOSING | MEMBER_FAULTS) & set(faults)) or ("rolling-key" in faults and len(faults) > 1)


class LongUpload:
    """The upload of one run. `refuse` is called with each violation."""

    def __init__(self, client: Client, rng: random.Random, refuse: Callable[[str], None], may_be_lost: bool) -> None:
        self._client = client
        self._rng = rng
        self._refuse = refuse
        self._may_be_lost = may_be_lost
        self._content = rng.randbytes(SIZE)
        self._location: str | None = None
        self.acknowledged = 0

    async def go_on(self, node: Node) -> None:
        """One request."""
        if self._location is None:
            path = f"/v2/{REPOSITORY}/blobs/uploads/"
            begun = await self._client.ask("begin upload", node, "POST", path, repository=REPOSITORY)
            self._location = begun.headers["location"] if begun is not None and begun.status == 202 else None
        elif self.acknowledged + PIECE < SIZE and self._rng.random() < 0.5:
            await self._add(node, self.acknowledged + PIECE)
        else:
            await self.look(node)

    async def _add(self, node: Node, end: int) -> None:
        first = self.acknowledged
        headers = OCTETS | {"Content-Range": f"{first}-{end - 1}"}
        answer = await self._ask("slow chunk", node, "PATCH", self._content[first:end], headers)
        if answer is not None and answer.status in (202, 416):
            self._learn(answer)

    async def look(self, node: Node) -> bool:
        """Ask how far it is. Return whether it is there."""
        answer = await self._ask("slow status", node, "GET")
        if answer is None or answer.status != 204:
            return False
        self._learn(answer)
        return True

    async def finish(self, node: Node) -> None:
        """In calm weather: all that was acknowledged is there, and the rest can follow."""
        if self._location is None or self._may_be_lost:
            return
        if not await self.look(node):
            self._refuse(f"an upload of which {self.acknowledged} bytes were acknowledged is gone in the end")
            return
        path = f"{self._location}?digest={digest_of(self._content)}"
        rest = self._content[self.acknowledged :]
        answer = await self._client.ask("slow upload", node, "PUT", path, rest, repository=REPOSITORY)
        if answer is None or answer.status != 201:
            self._refuse("an upload that went on through everything cannot be finished")

    async def _ask(
        self, kind: str, node: Node, method: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer | None:
        assert self._location is not None, "it was begun"
        return await self._client.ask(kind, node, method, self._location, body, headers, repository=REPOSITORY)

    def _learn(self, answer: Answer) -> None:
        """Learn from an answer how far the upload is: never less than was acknowledged."""
        said = int(answer.headers["range"].partition("-")[2]) + 1
        size = said if said > 1 else 0
        if size < self.acknowledged and not self._may_be_lost:
            self._refuse(f"an upload of {self.acknowledged} acknowledged bytes has {size}")
        self.acknowledged = size
        self._location = answer.headers["location"]


async def keep_on(upload: LongUpload, rng: random.Random, nodes: Callable[[], list[Node]]) -> None:
    """Go on until cancelled, at any instance."""
    while True:
        await asyncio.sleep(PAUSE_S * (0.5 + rng.random()))
        await upload.go_on(rng.choice(nodes()))

"""Clients that pull ranges of content that other instances hold, one range or several in a request.

Each blob is new, so the instance that is asked for ranges of it has to fetch them. A second instance may hold it too.
Every byte of every answer is compared with the blob.
"""

import random
from collections.abc import Callable, Sequence

from simulations.checkers import Violation
from simulations.checkers.answers import check_ranges
from simulations.node import Node
from simulations.workload.client import SCRATCH, Client
from simulations.workload.images import digest_of

MIN_BYTES, MAX_BYTES = 400, 1500
MAX_RANGES = 3


class ColdRanges:
    """One such client. `refuse` is called with each violation."""

    def __init__(self, client: Client, rng: random.Random, refuse: Callable[[str], None]) -> None:
        self._client = client
        self._rng = rng
        self._refuse = refuse

    async def one_blob(self) -> None:
        """Push a blob, pull ranges of it at several instances, and delete it."""
        rng, client = self._rng, self._client
        blob = rng.randbytes(rng.randint(MIN_BYTES, MAX_BYTES))
        for _ in range(rng.randint(1, 2)):
            if not await client.upload(rng.choice(client.places()), SCRATCH, blob):
                return
        for _ in range(rng.randint(2, 5)):
            await self.pull(rng.choice(client.places()), blob, self._draw(len(blob)))
        digest = digest_of(blob)
        path, node = f"/v2/{SCRATCH}/blobs/{digest}", rng.choice(client.places())
        await client.ask("delete blob", node, "DELETE", path, repository=SCRATCH, digest=digest)

    async def pull(self, node: Node, blob: bytes, ranges: Sequence[tuple[int, int]]) -> None:
        """Pull ranges of a blob, by their first and last bytes."""
        digest = digest_of(blob)
        header = "bytes=" + ",".join(f"{first}-{last}" for first, last in ranges)
        answer = await self._client.ask(
            "pull range", node, "GET", f"/v2/{SCRATCH}/blobs/{digest}",
            headers={"Range": header}, repository=SCRATCH, reference=header, digest=digest,
        )  # fmt: skip
        if answer is not None and answer.status == 206:
            try:
                check_ranges(blob, ranges, answer.headers, answer.body)
            except Violation as violation:
                self._refuse(f"{header} of {digest}: {violation}")

    def _draw(self, size: int) -> list[tuple[int, int]]:
        """Draw ranges that do not overlap, in any order: their first and last bytes."""
        count = self._rng.choice((1, 1, 2, MAX_RANGES))
        ends = sorted(self._rng.sample(range(size), 2 * count))
        ranges = [(ends[2 * number], ends[2 * number + 1]) for number in range(count)]
        self._rng.shuffle(ranges)
        return ranges

"""What clients do, and how often."""

import asyncio
from collections.abc import Awaitable, Callable

from simulations.odd_uploads import OddUpload
from simulations.workload import REPOSITORIES, Client
from simulations.world import Node

Habit = Callable[[Client, Node, str], Awaitable[None]]


async def odd_upload(client: Client, node: Node, repository: str) -> None:
    await OddUpload(client, node, client.drawn).carry_out()


HABITS: dict[Habit, int] = {
    Client.push_image: 30,
    Client.pull: 25,
    Client.push_index: 4,
    Client.push_artifact: 3,
    Client.mount: 4,
    Client.delete_tag: 6,
    Client.delete_manifest: 4,
    Client.delete_blob: 2,
    Client.come_and_go: 4,
    Client.read_back: 5,
    odd_upload: 4,
    Client.list_tags: 4,
    Client.list_referrers: 4,
}
WHERE_COLLECTED: dict[Habit, int] = {Client.delete_manifest: 30}
"""Content comes out of use often there."""


async def live(client: Client, operations: int, pause_s: float) -> None:
    """Do so many things, with a drawn pause of about so long between them."""
    kinds, weights = zip(*(HABITS | (WHERE_COLLECTED if client.collects else {})).items(), strict=True)
    for _ in range(operations):
        (kind,) = client.drawn.choices(kinds, weights)
        node = client.drawn.choice(client.places())
        await kind(client, node, client.drawn.choice(REPOSITORIES))
        await asyncio.sleep(client.drawn.random() * 2 * pause_s)

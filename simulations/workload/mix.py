"""The mix of operations: what clients do, and how often."""

import asyncio
from collections.abc import Awaitable, Callable

from simulations.node import Node
from simulations.workload.client import REPOSITORIES, Client
from simulations.workload.malformed_uploads import MalformedUpload

Action = Callable[[Client, Node, str], Awaitable[None]]


async def malformed_upload(client: Client, node: Node, repository: str) -> None:
    await MalformedUpload(client, node, client.rng).carry_out()


MIX: dict[Action, int] = {
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
    malformed_upload: 4,
    Client.list_tags: 4,
    Client.list_referrers: 4,
}
WHERE_COLLECTED: dict[Action, int] = {Client.delete_manifest: 30}
"""Content comes out of use often there."""


async def run_mix(client: Client, operations: int, pause_s: float) -> None:
    """Do so many things, with a drawn pause of about so long between them."""
    kinds, weights = zip(*(MIX | (WHERE_COLLECTED if client.collects else {})).items(), strict=True)
    for _ in range(operations):
        (kind,) = client.rng.choices(kinds, weights)
        client.credential = client.choose_credential()
        node = client.rng.choice(client.places())
        await kind(client, node, client.rng.choice(REPOSITORIES))
        await asyncio.sleep(client.rng.random() * 2 * pause_s)

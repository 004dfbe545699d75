"""Short scenarios for bugs that drawn plans seldom bring to light."""

import asyncio
import random
from typing import Any
from unittest.mock import patch

from simulations.checkers.readiness import LOOK_S
from simulations.faults.members import leave_one
from simulations.images import ALL_IMAGES
from simulations.run import Run
from simulations.workload import Client

KNOWN_S = 2.5
"""After so long every instance knows the others."""
TOLD_S = 6.5
"""After so long a heartbeat, or a question in place of one, has told every instance that another has published more."""


async def _begin(playing: Run) -> Client:
    world = playing.world
    await asyncio.gather(*(playing.restart(node) for node in world.nodes))
    await asyncio.sleep(KNOWN_S)
    return Client("client", world.network, lambda: world.nodes, playing, f"{playing.plan.seed} client")


async def _push(work: Client, playing: Run, repository: str) -> None:
    while not await work.push(playing.world.nodes[0], repository, "v1", ALL_IMAGES[0]):
        pass  # clients cancel an upload now and then


async def pull_elsewhere(playing: Run) -> None:
    """Push at one site, and pull at another one that no frame reaches."""
    work = await _begin(playing)
    playing.world.redis.stalled |= set(playing.world.redis.names)
    await _push(work, playing, "app")
    await asyncio.sleep(TOLD_S)
    await work.pull_manifest(playing.world.nodes[1], "app", "v1")


async def pull_after_a_gap(playing: Run) -> None:
    """Pull at a site that missed the frames of one push, and has the frames of a later one."""
    world = playing.world
    work = await _begin(playing)
    for server in world.redis.names:
        world.weather.block(server, world.nodes[1].name)
    await _push(work, playing, "app")
    for server in world.redis.names:
        world.weather.unblock(server, world.nodes[1].name)
    await _push(work, playing, "lib")
    await asyncio.sleep(TOLD_S)
    await work.pull_manifest(world.nodes[1], "app", "v1")


async def leave_unheard(playing: Run) -> None:
    """Leave while no frame reaches anybody, and heal everything afterwards."""
    world = playing.world
    work = await _begin(playing)
    await _push(work, playing, "app")
    world.redis.stalled |= set(world.redis.names)
    await leave_one(playing, world.nodes[0], random.Random(0))  # a seed with which it is not killed
    world.redis.stalled.clear()
    await playing.heal()
    await asyncio.sleep(TOLD_S)
    await playing.converge()
    await playing._check_end()


async def hear_and_take_nothing_in(playing: Run) -> None:
    """Hear from a neighbour's heartbeats that it has published more, and fail to take any of it in."""
    work = await _begin(playing)
    behind = playing.world.nodes[1].instance
    assert behind is not None, "it has just started"

    async def never(*arguments: Any) -> None:
        await asyncio.Event().wait()

    with (
        patch.object(behind.cluster.gossip, "_apply", never),
        patch.object(behind.cluster.anti_entropy, "_catch_up", never),
    ):
        await _push(work, playing, "app")
        for _ in range(30):
            await asyncio.sleep(LOOK_S)
            playing.judge(playing.readiness.look)

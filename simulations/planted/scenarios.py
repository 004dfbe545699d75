"""Short scenarios for bugs that drawn plans seldom bring to light."""

import asyncio
import random
from typing import Any
from unittest.mock import patch

from simulations.checkers.readiness import LOOK_S
from simulations.faults.members import leave_one
from simulations.simulation import Simulation
from simulations.workload.client import SCRATCH, Client
from simulations.workload.cold_ranges import ColdRanges
from simulations.workload.images import ALL_IMAGES

TOLD_S = 6.5
"""After so long a heartbeat, or a question in place of one, has told every instance that another has published more."""


async def _begin(simulation: Simulation) -> Client:
    await simulation.start()
    return simulation.client()


async def _push(work: Client, simulation: Simulation, repository: str) -> None:
    await work.push_until_acknowledged(simulation.cluster.nodes[0], repository, "v1", ALL_IMAGES[0])


async def pull_elsewhere(simulation: Simulation) -> None:
    """Push at one site, and pull at another one that no frame reaches."""
    work = await _begin(simulation)
    simulation.cluster.redis.stalled |= set(simulation.cluster.redis.names)
    await _push(work, simulation, "app")
    await asyncio.sleep(TOLD_S)
    await work.pull_manifest(simulation.cluster.nodes[1], "app", "v1")


async def pull_after_a_gap(simulation: Simulation) -> None:
    """Pull at a site that missed the frames of one push, and has the frames of a later one."""
    cluster = simulation.cluster
    work = await _begin(simulation)
    for server in cluster.redis.names:
        cluster.packet_simulator.block(server, cluster.nodes[1].name)
    await _push(work, simulation, "app")
    for server in cluster.redis.names:
        cluster.packet_simulator.unblock(server, cluster.nodes[1].name)
    await _push(work, simulation, "lib")
    await asyncio.sleep(TOLD_S)
    await work.pull_manifest(cluster.nodes[1], "app", "v1")


async def pull_range_of_wrong_bytes(simulation: Simulation) -> None:
    """Pull a range that is in all MiBs of a blob from another site, while bits change on the way."""
    first, second = simulation.cluster.nodes
    work = await _begin(simulation)
    blob = random.Random(0).randbytes(900)
    await work.upload(first, SCRATCH, blob)
    await asyncio.sleep(TOLD_S)
    simulation.disturbances.note()
    simulation.cluster.packet_simulator.flips = 1.0
    await ColdRanges(work, random.Random(0), simulation.violations.report).pull(second, blob, [(1, 898)])


async def leave_unheard(simulation: Simulation) -> None:
    """Leave while no frame reaches anybody, and heal everything afterwards."""
    cluster = simulation.cluster
    work = await _begin(simulation)
    await _push(work, simulation, "app")
    cluster.redis.stalled |= set(cluster.redis.names)
    await leave_one(simulation, cluster.nodes[0], random.Random(0))  # a seed with which it is not killed
    cluster.redis.stalled.clear()
    await simulation.heal()
    await asyncio.sleep(TOLD_S)
    await simulation.converge()
    await simulation.check_invariants()


async def hear_and_take_nothing_in(simulation: Simulation) -> None:
    """Hear from a neighbour's heartbeats that it has published more, and fail to take any of it in."""
    work = await _begin(simulation)
    behind = simulation.cluster.nodes[1].instance
    assert behind is not None, "it has just started"

    async def never(*arguments: Any) -> None:
        await asyncio.Event().wait()

    with (
        patch.object(behind.cluster.applier, "_apply", never),
        patch.object(behind.cluster.anti_entropy, "_catch_up", never),
    ):
        await _push(work, simulation, "app")
        for _ in range(30):
            await asyncio.sleep(LOOK_S)
            simulation.violations.check(simulation.checkers.readiness.look)

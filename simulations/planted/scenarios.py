"""Short scenarios for bugs that drawn plans seldom bring to light."""

import asyncio
import random
from typing import Any
from unittest.mock import patch

from simulations.checkers.readiness import LOOK_S
from simulations.disturbances import CALM_S
from simulations.faults.members import leave_one
from simulations.simulation import Simulation
from simulations.workload.client import OCTETS, SCRATCH, Client
from simulations.workload.cold_ranges import ColdRanges
from simulations.workload.images import ALL_IMAGES, digest_of

LATE_S = 3.0
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


async def cancel_before_the_commit_arrives(simulation: Simulation) -> None:
    """Kill a worker whose commit is on its way, and cancel the upload at the worker in its place before it arrives."""
    location, _ = await lose_worker_with_a_late_commit(simulation, LATE_S)
    node, work = simulation.nodes[0], simulation.client("canceller")
    await work.ask("cancel", node, "DELETE", location, repository=SCRATCH)
    await asyncio.sleep(LATE_S)
    await simulation.heal()
    await simulation.converge()
    await asyncio.sleep(CALM_S)
    await simulation.check_invariants()


async def lose_worker_with_a_late_commit(simulation: Simulation, late_s: float) -> tuple[str, bytes]:
    """Have a worker finish an upload, and kill it while the commit is on its way. Return where the upload is, and the
    content of which a third was acknowledged."""
    work = await _begin(simulation)
    node, blob = simulation.nodes[0], random.Random(simulation.plan.seed).randbytes(300)
    simulation.disturbances.begin("kill of the worker")
    node.pause(primary_alone=True)  # so that the worker takes the connection
    begun = await work.ask("begin upload", node, "POST", f"/v2/{SCRATCH}/blobs/uploads/", repository=SCRATCH)
    node.resume()
    assert begun is not None, "a worker begins uploads alone"
    headers = {"Content-Range": "0-99", **OCTETS}
    chunk = await work.ask("chunk", node, "PATCH", begun.headers["location"], blob[:100], headers, repository=SCRATCH)
    assert chunk is not None, "nothing is in the way"
    location = chunk.headers["location"]
    node.links.late_s = late_s
    last = f"{location}?digest={digest_of(blob)}"
    finishing = asyncio.ensure_future(
        work.ask("upload", node, "PUT", last, blob[100:], repository=SCRATCH, digest=digest_of(blob))
    )
    await asyncio.sleep(late_s / 10)
    node.die_worker()
    await finishing
    node.links.late_s = 0.0
    assert node.host is not None, "the primary goes on"
    node.replace_worker(node.host)
    await asyncio.sleep(late_s / 10)
    simulation.disturbances.end("kill of the worker")
    return location, blob


async def go_on_before_the_commit_arrives(simulation: Simulation) -> None:
    """Kill a worker whose commit is on its way, and have the upload go on at the worker in its place before it arrives.
    Content that counts as here after that is whole."""
    location, blob = await lose_worker_with_a_late_commit(simulation, LATE_S)
    node, work = simulation.nodes[0], simulation.client("another")
    headers = {"Content-Range": "100-109", **OCTETS}
    await work.ask("chunk", node, "PATCH", location, blob[100:110], headers, repository=SCRATCH)
    await asyncio.sleep(LATE_S)
    simulation.disturbances.fired("kill")
    node.die(False)
    await simulation.heal()
    await simulation.converge()
    await asyncio.sleep(CALM_S)
    await simulation.check_invariants()


async def cut_before_the_answer(simulation: Simulation) -> None:
    """Cut the link of a worker once the primary has made its commit, and before the answer arrives."""
    work = await _begin(simulation)
    node, blob = simulation.nodes[0], random.Random(simulation.plan.seed).randbytes(300)
    node.pause(primary_alone=True)  # so that the worker takes the connection
    begun = await work.ask("begin upload", node, "POST", f"/v2/{SCRATCH}/blobs/uploads/", repository=SCRATCH)
    node.resume()
    assert begun is not None, "a worker begins uploads alone"
    node.links.late_s = LATE_S
    last, digest = f"{begun.headers['location']}?digest={digest_of(blob)}", digest_of(blob)
    finishing = asyncio.ensure_future(work.ask("upload", node, "PUT", last, blob, repository=SCRATCH, digest=digest))
    await asyncio.sleep(LATE_S * 1.1)  # the commit took LATE_S at most, the answer takes half of that at least
    node.links.late_s = 0.0
    for end in node.links.commit_links():
        end.cut()
    answer = await finishing
    if answer is None or answer.status != 201:
        simulation.violations.report(f"an upload whose commit was sent again is answered {answer and answer.status}")
    await simulation.heal()
    await simulation.converge()
    await simulation.check_invariants()

"""Requests that reach an instance before it is current are decided again once it is."""

import asyncio

from registry.cluster.replication.read_lease import READ_WAIT_S
from simulations.planted.access_scenarios import ask_until_ready, begin
from simulations.simulation import Simulation
from simulations.workload.credentials import NoCredential
from simulations.workload.images import ALL_IMAGES, digest_of
from tests.simulations.steps import play

ENFORCED = ("access", "enforced")


def test_a_new_instance_of_an_enforcing_cluster_answers_nothing_without_a_credential():
    """A request that reached a new instance before it had the facts was let in, waited until the instance had caught
    up, and was answered. It is now decided again after it has waited."""

    async def act(simulation: Simulation) -> None:
        await begin(simulation, is_enforced=True)
        assert await simulation.client().push(simulation.nodes[0], "app", "v1", ALL_IMAGES[0])
        new = simulation.cluster.add_node("eu")
        starting = asyncio.ensure_future(simulation.lifecycle.restart(new))
        assert await ask_until_ready(simulation, new, NoCredential()) == {401}
        await starting

    play(act, sites=("eu", "eu"), conditions=ENFORCED)


def test_an_account_that_was_blocked_while_an_instance_was_down_gets_nothing_there():
    """A request that reached a restarted instance was let in by the facts that it had, waited until the instance had
    caught up, and was answered, though it then had the fact of the block."""

    async def act(simulation: Simulation) -> None:
        changes = await begin(simulation, is_enforced=True)
        first, second = simulation.nodes
        (key,) = changes.credentials_of("ci")
        assert await simulation.client().push(first, "app", "v1", ALL_IMAGES[0])
        await asyncio.sleep(1)
        simulation.disturbances.fired("kill")
        second.die(power_cut=False)
        await changes.ask(first, "account/block", {"name": "ci"})
        starting = asyncio.ensure_future(simulation.lifecycle.restart(second))
        assert await ask_until_ready(simulation, second, key) == {401}
        await starting

    play(act, sites=("eu", "eu"), conditions=ENFORCED)


def test_a_block_that_a_worker_waits_for_counts_for_what_has_waited():
    """A request that reached a worker whose read lease had lapsed was let in by the facts that it had. It is decided
    again once the primary has caught up."""

    async def act(simulation: Simulation) -> None:
        changes = await begin(simulation, is_enforced=True)
        first, second = simulation.nodes
        (key,) = changes.credentials_of("ci")
        assert await simulation.client("pusher").push(second, "app", "v1", ALL_IMAGES[0])
        client = simulation.client()
        client.credential = key
        assert (await client.pull_blob(second, "app", digest_of(ALL_IMAGES[0].blobs[0]))).status == 200
        simulation.disturbances.fired("hang of the primary")
        second.pause(primary_alone=True)
        await changes.ask(first, "account/block", {"name": "ci"})
        pulling = asyncio.ensure_future(client.pull_blob(second, "app", digest_of(ALL_IMAGES[0].blobs[0])))
        await asyncio.sleep(READ_WAIT_S / 2)
        second.resume()
        assert (await pulling).status == 401

    play(act, sites=("eu", "eu"), conditions=ENFORCED)

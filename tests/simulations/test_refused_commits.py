"""Commits that a disk has refused, after SQLite had written them: they may be found there by the next start."""

import asyncio
import errno
import random

from simulations.simulation import Simulation
from simulations.workload.images import ALL_IMAGES
from tests.simulations.steps import agree, play, pushed


async def refused_delete(simulation, node):
    """A delete of v1 whose commit SQLite has written, and the disk does not sync."""

    def fail_once(call, name):
        if call == "sqlite sync":
            node.on_disk_call = lambda call, name: None
            raise OSError(errno.EIO, "EIO", name)

    simulation.disturbances.note()
    node.on_disk_call = fail_once
    path = "/v2/app/manifests/v1"
    answer = await simulation.client().ask("delete tag", node, "DELETE", path, repository="app", reference="v1")
    assert answer.status == 503


def test_what_was_refused_since_its_sync_failed_may_be_found_on_the_disk():
    """The checker asked too much: a delete was refused because the sync of its commit failed. SQLite had written the
    commit, a kill left it on the disk, and the next start found it there. What a disk refused may be done all the
    same."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        node, work = simulation.nodes[0], simulation.client()
        await pushed(work, node, "v1", ALL_IMAGES[0])
        await refused_delete(simulation, node)
        assert node.instance.catalog.queries.tags("app", "", 9) == ["v1"]
        node.die(False)
        await simulation.lifecycle.restart(node)
        assert node.instance.catalog.queries.tags("app", "", 9) == []

    play(act, sites=("eu",))


def test_what_was_refused_is_found_on_a_disk_that_is_put_back():
    """A backup was taken after the sync of a delete had failed. Put back, the instance counted the delete and told it
    to the others, and the checker knew no operation for it there: it no longer knew the writer."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        node, other = simulation.nodes
        await pushed(simulation.client(), node, "v1", ALL_IMAGES[0])
        await refused_delete(simulation, node)
        backup = node.backup()
        await pushed(simulation.client(), node, "v2", ALL_IMAGES[0])
        assert node.instance.catalog.queries.tags("app", "", 9) == ["v1", "v2"]
        await simulation.lifecycle.restore(node, backup)
        await agree(simulation)
        assert other.instance.catalog.queries.tags("app", "", 9) == ["v2"]

    play(act, sites=("eu", "eu"))


def test_what_was_refused_is_found_on_a_copy_of_the_disk():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        node, other = simulation.nodes
        await pushed(simulation.client(), node, "v1", ALL_IMAGES[0])
        await refused_delete(simulation, node)
        simulation.checkers.lost.doubled = True
        clone = simulation.cluster.add_node(node.site)
        clone.image, clone.rng = node.backup(), random.Random("twin")
        simulation.lifecycle.expect_clone(node, clone)
        await clone.start()
        await asyncio.sleep(6)
        assert other.instance.catalog.queries.tags("app", "", 9) == []
        clone.die(False)
        simulation.nodes.remove(clone)
        simulation.cluster.gone.append(clone)
        simulation.lifecycle.expect_disk_loss(clone)
        await agree(simulation)

    play(act, sites=("eu", "eu"))

"""Commits that a disk has refused, after SQLite had written them: they may be found there by the next start."""

import asyncio
import errno
import random

from simulations.images import ALL_IMAGES
from simulations.run import Run
from tests.simulations.test_scenarios import agree, begin, client, play, pushed


async def refused_delete(playing, node):
    """A delete of v1 whose commit SQLite has written, and the disk does not sync."""

    def fail_once(call, name):
        if call == "sqlite sync":
            node.on_disk_call = lambda call, name: None
            raise OSError(errno.EIO, "EIO", name)

    playing.disturb()
    node.on_disk_call = fail_once
    path = "/v2/app/manifests/v1"
    answer = await client(playing).ask("delete tag", node, "DELETE", path, repository="app", reference="v1")
    assert answer.status == 503


def test_what_was_refused_since_its_sync_failed_may_be_found_on_the_disk():
    """The checker asked too much: a delete was refused because the sync of its commit failed. SQLite had written the
    commit, a kill left it on the disk, and the next start found it there. What a disk refused may be done all the
    same."""

    async def act(playing: Run) -> None:
        await begin(playing)
        node, work = playing.world.nodes[0], client(playing)
        await pushed(work, node, "v1", ALL_IMAGES[0])
        await refused_delete(playing, node)
        assert node.instance.catalog.queries.tags("app", "", 9) == ["v1"]
        node.die(False)
        await playing.restart(node)
        assert node.instance.catalog.queries.tags("app", "", 9) == []

    play(act, sites=("eu",))


def test_what_was_refused_is_found_on_a_disk_that_is_put_back():
    """A backup was taken after the sync of a delete had failed. Put back, the instance counted the delete and told it
    to the others, and the checker took it for nobody's doing there: it no longer knew the writer."""

    async def act(playing: Run) -> None:
        await begin(playing)
        node, other = playing.world.nodes
        await pushed(client(playing), node, "v1", ALL_IMAGES[0])
        await refused_delete(playing, node)
        backup = node.backup()
        await pushed(client(playing), node, "v2", ALL_IMAGES[0])
        assert node.instance.catalog.queries.tags("app", "", 9) == ["v1", "v2"]
        node.die(False)
        playing.put_back(node)
        node.image = backup
        await playing.restart(node)
        await agree(playing)
        assert other.instance.catalog.queries.tags("app", "", 9) == ["v2"]

    play(act, sites=("eu", "eu"))


def test_what_was_refused_is_found_on_a_copy_of_the_disk():
    async def act(playing: Run) -> None:
        await begin(playing)
        node, other = playing.world.nodes
        await pushed(client(playing), node, "v1", ALL_IMAGES[0])
        await refused_delete(playing, node)
        playing.lost.doubled = True
        twin = playing.world.add_node(node.site)
        twin.image, twin.drawn = node.backup(), random.Random("twin")
        playing.copied(node, twin)
        await twin.start()
        await asyncio.sleep(6)
        assert other.instance.catalog.queries.tags("app", "", 9) == []
        twin.die(False)
        playing.world.nodes.remove(twin)
        playing.world.gone.append(twin)
        playing.put_back(twin)
        await agree(playing)

    play(act, sites=("eu", "eu"))

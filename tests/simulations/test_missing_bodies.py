"""Regressions found by simulations: manifests whose bodies no frame has brought."""

import asyncio

import pytest

from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.rpc.client import PeerClient
from simulations.checkers import Violation
from simulations.checkers.bounds import check_wanted
from simulations.simulation import Simulation
from simulations.workload.images import ALL_IMAGES, digest_of
from tests.simulations.steps import held, play, pushed, put_again


@pytest.fixture
def no_frame_brings_bodies(monkeypatch):
    """Keep bodies that no frame carries at one instance alone."""

    async def leave_it(self, change):
        return True

    monkeypatch.setattr("registry.cluster.replication.frame_sender.BODY_ROOM_BYTES", 0)
    monkeypatch.setattr(ManifestBodies, "deposit", leave_it)


@pytest.fixture
def nobody_gives_bodies(monkeypatch, no_frame_brings_bodies):
    async def get_nothing(self, digest):
        return None

    monkeypatch.setattr(ManifestBodies, "_fetch", get_nothing)


async def missed(simulation: Simulation, wait_s: float) -> None:
    """One instance is away while the other gets all images, and has their bodies a while after it is back."""
    await simulation.start()
    first, second = simulation.nodes
    second.die(False)
    for number, image in enumerate(ALL_IMAGES):
        await pushed(simulation.client(), first, f"v{number}", image)
    await simulation.lifecycle.restart(second)
    await asyncio.sleep(wait_s)
    assert all(second.instance.catalog.queries.has_body(digest_of(image.body)) for image in ALL_IMAGES)


@pytest.mark.usefixtures("nobody_gives_bodies")
def test_a_manifest_that_is_deleted_while_its_body_is_waited_for_is_a_miss():
    """A manifest that is deleted while a GET waits for its body is a miss (404) at once, not 503."""
    image = ALL_IMAGES[0]

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        await pushed(simulation.client(), first, "v1", image)
        await asyncio.sleep(1)
        path = f"/v2/app/manifests/{digest_of(image.body)}"
        asked = {"repository": "app", "digest": digest_of(image.body)}
        pulling = asyncio.create_task(simulation.client("pulling").ask("pull manifest", second, "GET", path, **asked))
        await asyncio.sleep(1)
        await simulation.client().ask("delete manifest", first, "DELETE", path, **asked)
        assert (await pulling).status == 404

    play(act, sites=("eu", "us"))


def test_a_manifest_that_went_with_a_disk_before_its_push_was_answered_may_be_nowhere():
    """The checker asked too much: facts of a push had travelled by a diff when its instance's disk was destroyed,
    before any instance had fetched the manifest's body, and before the push was answered."""
    held(
        52685,
        sites=("eu", "us", "ap"),
        faults=("bus-cut", "disk-destroyed"),
        conditions=("two-copies",),
        operations=6,
        calm_operations=0,
        between_sites_s=0.08,
    )


@pytest.mark.usefixtures("nobody_gives_bodies")
@pytest.mark.parametrize("promised", [False, True], ids=["by one disk", "by two"])
def test_a_manifest_whose_push_was_answered_may_be_nowhere_if_one_disk_was_to_hold_it(promised):
    """The body of a manifest whose push was answered must be somewhere only if the write concern asked for two holders,
    as its content must."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        await pushed(simulation.client(), first, "v1", ALL_IMAGES[0])
        await asyncio.sleep(1)
        simulation.checkers.lost.disk_of(first, simulation.checkers.acknowledged.pushed() if promised else set())
        first.die(True)
        nowhere = simulation.checkers.lost.nowhere()
        if promised:
            with pytest.raises(Violation):
                check_wanted(second.name, second.instance, nowhere)
        else:
            check_wanted(second.name, second.instance, nowhere)

    play(act, sites=("eu", "us"))


@pytest.mark.usefixtures("no_frame_brings_bodies")
def test_a_body_whose_manifest_is_deleted_while_it_comes_is_fetched_again_when_that_is_back(monkeypatch):
    """A manifest's body that arrived when its manifest had just been deleted was dropped, and counted as fetched.
    Pushed again at once, the manifest was without its body there for up to five seconds."""
    receive, image = ManifestBodies._receive, ALL_IMAGES[0]

    async def act(simulation: Simulation) -> None:
        async def late(self, member, digest):
            body = await receive(self, member, digest)
            monkeypatch.setattr(ManifestBodies, "_receive", receive)
            await simulation.client("deleting").ask(
                "delete manifest", first, "DELETE", path, repository="app", digest=digest
            )
            await asyncio.sleep(0.2)
            return body

        await simulation.start()
        first, second = simulation.nodes
        path = f"/v2/app/manifests/{digest_of(image.body)}"
        monkeypatch.setattr(ManifestBodies, "_receive", late)
        await pushed(simulation.client(), first, "v1", image)
        await asyncio.sleep(0.5)
        assert second.instance.catalog.queries.body(digest_of(image.body)) is None
        assert await put_again(simulation.client(), first, "v1")
        await asyncio.sleep(0.5)
        assert second.instance.catalog.queries.body(digest_of(image.body)) == image.body

    play(act, sites=("eu", "us"))


@pytest.mark.usefixtures("no_frame_brings_bodies")
def test_many_manifests_that_are_missing_come_with_one_question(monkeypatch):
    """They come one by one where the holder does not know that question, or does not answer it."""
    monkeypatch.setattr("registry.cluster.replication.manifest_bodies.MIN_BATCH", len(ALL_IMAGES))
    receive, alone = ManifestBodies._receive, []

    async def counted(self, member, digest):
        alone.append(digest)
        return await receive(self, member, digest)

    monkeypatch.setattr(ManifestBodies, "_receive", counted)

    async def act(simulation: Simulation) -> None:
        await missed(simulation, 6)

    play(act, sites=("eu", "us"))
    assert alone == []

    async def unknown(self, digests):
        pass

    monkeypatch.setattr(ManifestBodies, "_fetch_batch", unknown)
    play(act, sites=("eu", "us"))
    assert len(alone) == len(ALL_IMAGES)


@pytest.mark.usefixtures("no_frame_brings_bodies")
def test_manifests_come_one_by_one_where_the_question_for_many_is_not_answered(monkeypatch):
    """It took all of each round, and then the next."""
    monkeypatch.setattr("registry.cluster.replication.manifest_bodies.MIN_BATCH", len(ALL_IMAGES))
    ask = PeerClient.ask_url

    async def hang(self, url, path, question, answer, instance=""):
        if path == "/manifests":
            await asyncio.sleep(60)
        return await ask(self, url, path, question, answer, instance)

    monkeypatch.setattr(PeerClient, "ask_url", hang)

    async def act(simulation: Simulation) -> None:
        await missed(simulation, 9)

    play(act, sites=("eu", "us"))

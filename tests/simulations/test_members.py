"""Scenarios of eviction, decommission, and collection under a load that never pauses."""

import asyncio
import errno
import statistics

import pytest

from registry.cluster.placement.eviction import Evictor
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.oci.names import Digest
from simulations import evictions
from simulations.evictions import BUDGET_GIB
from simulations.simulation import Simulation
from simulations.workload.images import ALL_IMAGES, digest_of
from tests.simulations.steps import agree, play, pushed, told_to_leave


def test_who_has_left_is_forgotten_though_no_frame_gets_through():
    """A leaver's last frame said that it was gone; where no instance received it, all waited for the leaver for ever.
    It now tells a member over HTTP, which records it."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        leaver = simulation.nodes[2]
        await pushed(simulation.client(), leaver, "v1", ALL_IMAGES[0])
        simulation.cluster.redis.stall()
        await asyncio.wait_for(await told_to_leave(simulation, leaver), 60)
        await asyncio.sleep(1)
        simulation.cluster.redis.resume()
        await agree(simulation)
        simulation.checkers.identities.check_end(simulation.nodes)
        assert [len(node.instance.cluster.members.all()) for node in simulation.nodes] == [1, 1]

    play(act)


def test_who_leaves_brings_the_manifests_that_nobody_comes_to_fetch(monkeypatch):
    """A leaver went with manifest bodies that the other instances had meant to fetch from it. It now sends them
    along."""

    async def in_vain(self, digest):
        return None

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        stays, leaver = simulation.nodes
        image = ALL_IMAGES[0]
        for node in (stays, leaver):
            for blob in image.blobs:
                while not await simulation.client().upload(node, "app", blob):
                    pass
        await asyncio.sleep(1)
        simulation.cluster.redis.stall()
        await asyncio.sleep(8)
        monkeypatch.setattr(ManifestBodies, "fetch", in_vain)
        assert await simulation.client("other").push(leaver, "app", "v1", image)
        await asyncio.wait_for(await told_to_leave(simulation, leaver), 60)
        assert await simulation.client("last").pull_manifest(stays, "app", "v1") == image.body

    play(act, sites=("eu", "us"))


def test_a_disk_that_refuses_the_last_word_delays_leaving_and_no_more():
    """A disk that refused a write during a decommission ended it with an error: the instance refused writes and never
    left. The write is now retried."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        leaver = simulation.nodes[2]
        await pushed(simulation.client(), leaver, "v1", ALL_IMAGES[0])
        hand_over, cluster = leaver.instance.cluster.decommission.hand_over, leaver.instance.cluster

        def refuse(call, name):
            if call == "sqlite sync":
                raise OSError(errno.EIO, "EIO", name)

        async def handed_over():
            await hand_over()
            cluster.decommission.hand_over = hand_over
            leaver.on_disk_call = refuse
            simulation.cluster.loop.call_later(3, lambda: setattr(leaver, "on_disk_call", lambda call, name: None))

        cluster.decommission.hand_over = handed_over
        await asyncio.wait_for(await told_to_leave(simulation, leaver), 60)

    play(act)


def test_who_leaves_looks_again_at_what_a_failing_disk_could_not_put_aside():
    """Content that could be neither read nor quarantined, since the disk failed for a moment, stayed out of use until
    the next start, and kept its instance from leaving. It is now looked at again."""

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        leaver = simulation.nodes[1]
        await pushed(simulation.client(), leaver, "v1", ALL_IMAGES[0])
        digest = Digest(digest_of(ALL_IMAGES[0].blobs[1]))
        leaver.instance.store.pending_quarantine[digest] = 0
        assert leaver.instance.store.held_size(digest) is None
        await asyncio.wait_for(await told_to_leave(simulation, leaver), 10)
        answer = await simulation.client("last").pull_blob(simulation.nodes[0], "app", digest)
        assert answer.body == ALL_IMAGES[0].blobs[1]

    play(act, sites=("eu", "us"))


@pytest.mark.parametrize("stopping", range(2))
def test_who_leaves_and_who_makes_room_do_not_rely_on_each_other(monkeypatch, stopping):
    """An evicting instance could act on the answer of one that had left meanwhile, which relied on it in turn. A
    leaver's request now voids such a decision, and a leaver evicts nothing."""
    count = Evictor._count

    async def nothing_found(self, digest, instances, enough):
        return 0

    async def slowly(self, digest, instances, enough):
        found = await count(self, digest, instances, enough)
        await asyncio.sleep(8 if found else 0)  # as if one of several did not answer
        return found

    async def act(simulation: Simulation) -> None:
        monkeypatch.setattr(Evictor, "_count", nothing_found)
        simulation.cluster.settings["disk_budget_gib"] = BUDGET_GIB
        await simulation.start()
        for number, node in enumerate(simulation.nodes):
            work = simulation.client(f"client{number}")
            await pushed(work, node, "v1", ALL_IMAGES[0])
            for blob in ALL_IMAGES[0].blobs:
                while not await work.upload(node, "app", blob):
                    pass
        monkeypatch.setattr(Evictor, "_count", slowly)
        await asyncio.sleep(6)
        leaver = simulation.nodes[stopping]
        await asyncio.wait_for(await told_to_leave(simulation, leaver), 60)
        await asyncio.sleep(20)
        simulation.checkers.holders.check_end()

    with evictions.eager(True):
        play(act, sites=("eu", "us"))


def test_collection_goes_on_under_load_that_never_pauses():
    """50 writes a second, 80 ms from site to site, a grace of a second: content goes, again and again, and nothing
    piles up."""
    asked, removed = [], []

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        for node in simulation.nodes:
            node.instance.cluster.garbage_collector._grace_s = 1.0
        for number, image in enumerate(ALL_IMAGES):
            await pushed(simulation.client(), simulation.nodes[number % 2], "v1", image)
        await asyncio.sleep(2)
        simulation.checkers.commits.grace_s = 1.0
        simulation.cluster.network.on_request.append(lambda source, target, path: asked.append(path))
        simulation.commits.delays_s.clear()
        pushing = [push_often(simulation, number) for number in range(5)]
        await asyncio.gather(*pushing, litter(simulation), *(sweep(simulation, node) for node in simulation.nodes))
        await agree(simulation)

    async def push_often(simulation: Simulation, number: int) -> None:
        work, place = simulation.client(f"client{number}"), simulation.nodes[number % 2]
        for turn in range(200):
            image = ALL_IMAGES[(turn + number) % 5]
            tag, digest = f"t{number}-{turn % 10}", digest_of(image.body)
            headers = {"Content-Type": image.media_type}
            await work.ask("push", place, "PUT", f"/v2/app/manifests/{tag}", image.body, headers, "app", tag, digest)
            await asyncio.sleep(0.09)

    async def litter(simulation: Simulation) -> None:
        """Content that no manifest will ever name."""
        for number in range(10):
            work = simulation.client(f"litter{number}")
            while not await work.upload(simulation.nodes[number % 2], "scratch", b"litter %d" % number):
                pass
            await asyncio.sleep(1.5)

    async def sweep(simulation: Simulation, node) -> None:
        work = simulation.client(f"sweeper {node.name}")
        for _ in range(16):
            await work.ask("collect", node, "POST", "/_concord/gc", b"{}")
            removed.append((simulation.now_s, node.instance.cluster.garbage_collector.removed))
            await asyncio.sleep(1.2)

    outcome = play(act, sites=("eu", "us"), between_sites_s=0.08)
    counts = [count for _, count in removed]
    assert max(counts) >= 3 and len(set(counts)) >= 4, "again and again"
    assert sum(path.endswith(("/diffs", "/updates")) for path in asked) / 20 <= 2, "diffs are for what was lost"
    assert statistics.median(outcome.delays_s) < 0.2
    assert max(outcome.delays_s) < 1

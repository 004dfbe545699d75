"""Two thousand flipped bits in content at rest: none leaves an instance, and all are mended."""

import asyncio
import random

from registry.oci.names import Digest
from registry.storage.store import content_path
from simulations.node import Node
from simulations.simulation import Simulation
from simulations.workload.images import digest_of
from tests.simulations.steps import play

FLIPS = 2000
CONTENTS = [random.Random(f"rot {n}").randbytes(3_000_000 if n % 50 == 0 else 100 + 90 * n) for n in range(100)]


async def hold_everywhere(simulation: Simulation) -> None:
    for content in CONTENTS:
        digest = digest_of(content)
        first, second = simulation.nodes
        while not await simulation.client().upload(first, "app", content):
            pass
        while (answer := await simulation.client().pull_blob(second, "app", digest)) is None or answer.status != 200:
            await asyncio.sleep(0.1)


def flip_all(simulation: Simulation, rng: random.Random) -> list[Node]:
    """A bit of each content, at one of the two. Return at which."""
    struck = [rng.choice(simulation.nodes) for _ in CONTENTS]
    for content, node in zip(CONTENTS, struck, strict=True):
        node.disk.flip_bit(content_path(Digest(digest_of(content))), rng.randrange(8 * len(content)))
    return struck


def is_whole(simulation: Simulation, content: bytes) -> bool:
    path = content_path(Digest(digest_of(content)))
    return all(node.disk.content(path) == content for node in simulation.nodes)


def found(simulation: Simulation) -> tuple[int, int]:
    contents = [node.instance.cluster.blob_reader for node in simulation.nodes]
    return sum(c.quarantine.found for c in contents), sum(c.repaired for c in contents)


def test_two_thousand_flipped_bits_never_leave_and_are_all_mended():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        await hold_everywhere(simulation)
        rng, work = random.Random(1), simulation.client()
        for _ in range(FLIPS // len(CONTENTS)):
            for content, node in zip(CONTENTS, flip_all(simulation, rng), strict=True):
                answer = await work.pull_blob(node, "app", digest_of(content))
                assert answer is not None and (answer.status, answer.body == content) == (200, True)
            await asyncio.sleep(1)
            assert all(is_whole(simulation, content) for content in CONTENTS)
        assert found(simulation) == (FLIPS, FLIPS)

    play(act, sites=("eu", "us"), faults=("flipped-bit",))


def test_a_scrub_mends_what_nobody_asks_for():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        await hold_everywhere(simulation)
        struck = flip_all(simulation, random.Random(2))
        struck[7].disk.remove(content_path(Digest(digest_of(CONTENTS[7]))))
        for node in simulation.nodes:
            assert node.instance.cluster.scrubber.begin()
            assert not node.instance.cluster.scrubber.begin(), "it is under way"
        begun_s = simulation.now_s
        while any(node.instance.cluster.scrubber.running for node in simulation.nodes):
            await asyncio.sleep(0.1)
        assert simulation.now_s - begun_s > sum(map(len, CONTENTS)) / (21 * 2**20), "it takes its time"
        passes = [node.instance.cluster.scrubber.last for node in simulation.nodes]
        count = len(CONTENTS) * len(simulation.nodes)
        assert sum(p.contents for p in passes) == count, "what is fetched again meanwhile is not checked once more"
        assert sum(p.corrupt for p in passes) == sum(p.repaired for p in passes) == len(CONTENTS)
        await asyncio.sleep(1)
        assert all(is_whole(simulation, content) for content in CONTENTS)

    play(act, sites=("eu", "us"), faults=("flipped-bit",), executor_s=0.0)


def test_what_is_due_is_scrubbed_without_being_asked_for():
    async def act(simulation: Simulation) -> None:
        await simulation.start()
        await hold_everywhere(simulation)
        flip_all(simulation, random.Random(3))
        await asyncio.sleep(200)
        assert found(simulation) == (0, 0), "all was checked when it came"
        for node in simulation.nodes:
            node.clock_offset_s += 8 * 86400
        await asyncio.sleep(200)
        assert found(simulation) == (len(CONTENTS), len(CONTENTS))
        assert all(is_whole(simulation, content) for content in CONTENTS)
        now_ms = simulation.nodes[0].wall_ms()
        for node in simulation.nodes:
            assert now_ms - node.instance.cluster.scrubber.oldest_check_ms() < 200_000

    play(act, sites=("eu", "us"), faults=("flipped-bit",))


def test_two_copies_with_different_damage_make_a_whole_one():
    content = random.Random("two").randbytes(5_000_000)
    digest = Digest(digest_of(content))

    async def act(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        work = simulation.client()
        while not await work.upload(first, "app", content):
            pass
        assert (await work.pull_blob(second, "app", digest)).status == 200
        before = first.instance.cluster.transfers.fetched_bytes
        first.disk.flip_bit(content_path(digest), 8 * 1_500_000)
        second.disk.flip_bit(content_path(digest), 8 * 4_500_000)
        assert (await work.pull_blob(first, "app", digest)).body == content
        assert first.instance.cluster.transfers.fetched_bytes - before == 2**20, "only what was damaged is fetched"
        assert (await work.pull_blob(second, "app", digest)).body == content

    play(act, sites=("eu", "us"), faults=("flipped-bit",))

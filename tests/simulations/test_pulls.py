"""Pulls of content that is being fetched, on days on which disks and holders fail."""

import asyncio
import errno
from unittest.mock import patch

import pytest

import registry.cluster.transfer.transfer as fetch
import registry.storage.ingest as ingest
from crdt.fact import blob_fact
from registry.cluster.transfer.transfer import TransferFailed
from registry.errors import OciError
from registry.oci.ranges import ByteRange
from simulations.simulation import Simulation
from simulations.workload.images import ALL_IMAGES, digest_of
from tests.simulations.steps import play, pushed

CONTENT = ALL_IMAGES[0].blobs[2]
"""Of 700 bytes."""
DIGEST = digest_of(CONTENT)


async def begun(simulation: Simulation):
    """A holder of content, and an instance that lacks it."""
    await simulation.start()
    holder, fetching = simulation.nodes
    await pushed(simulation.client(), holder, "v1", ALL_IMAGES[0])
    await asyncio.sleep(1)
    return holder, fetching


def opened(fetching, repository="app"):
    row = fetching.instance.catalog.queries.blob(repository, DIGEST)
    return fetching.instance.cluster.blob_reader.read(DIGEST, row.size, row.writer, ByteRange(0, row.size))


async def read(pieces, pause_s=0.0):
    """Return what arrives, and whether it came to a clean end."""
    received = b""
    try:
        async for piece in pieces:
            received += piece
            await asyncio.sleep(pause_s)
    except (OciError, TransferFailed):
        return received, False
    return received, True


def refusing(node, what, name_begins="fetches/", at=1):
    """Have a disk refuse calls from the n-th on."""
    calls = []

    def refuse(call, name):
        if call == what and name.startswith(name_begins):
            calls.append(call)
            if len(calls) >= at:
                raise OSError(errno.EIO, "EIO", name)

    node.on_disk_call = refuse


def act_out(act, seed=0):
    play(act, sites=("eu", "us"), seed=seed, conditions=("small",))


def test_a_link_that_says_too_large_a_size_does_not_hang_readers():
    """A member had linked the content in another repository as larger than it is. Who read it through that link while
    it was fetched waited for ever."""

    async def act(simulation: Simulation) -> None:
        holder, fetching = await begun(simulation)
        documents = holder.instance.catalog.documents

        def lie(tx):
            stamp = documents.clock.tick(holder.instance.clock.now_ms())
            return documents.write(
                tx, "repository/evil", [], [blob_fact(DIGEST, len(CONTENT) + 100, stamp, documents.writer)]
            )

        await holder.instance.catalog.database.write(lie)
        await asyncio.sleep(3)
        right, wrong = (asyncio.ensure_future(read(opened(fetching, name))) for name in ("app", "evil"))
        assert await right == (CONTENT, True)
        async with asyncio.timeout(30):
            assert not (await wrong)[1]

    act_out(act)


@pytest.mark.parametrize("seed", range(3))
def test_a_sync_that_failed_on_the_way_does_not_have_all_of_it_fetched_again_and_again(seed):
    async def act(simulation: Simulation) -> None:
        _, fetching = await begun(simulation)
        simulation.disturbances.note()
        transfers, begin_transfer = [], fetching.instance.cluster.transfers._begin

        def noted(transfer, uploader):
            transfers.append(transfer)
            return begin_transfer(transfer, uploader)

        fetching.instance.cluster.transfers._begin = noted
        refusing(fetching, "sync")
        assert await read(opened(fetching)) == (CONTENT, True)
        assert len(transfers) == 1
        fetching.on_disk_call = lambda call, name: None

    with patch.object(ingest, "SYNCED_AT_ONCE_BYTES", 300):
        act_out(act, seed)


def test_wrong_bytes_before_a_read_that_failed_have_no_clean_end():
    """A holder gave wrong bytes, some of which were given out; then the reader's own read failed, and the rest came
    through from the holder, right by now. What had been given out was compared with nothing."""

    async def act(simulation: Simulation) -> None:
        _, fetching = await begun(simulation)
        fetching.instance.disk.is_cached = lambda: False
        simulation.checkers.lost.digests.add(DIGEST)
        simulation.cluster.packet_simulator.flips = 1.0
        refusing(fetching, "pread", at=4)
        refuse = fetching.on_disk_call

        def struck(call, name):
            try:
                refuse(call, name)
            except OSError:
                simulation.cluster.packet_simulator.flips = 0.0
                raise

        fetching.on_disk_call = struck
        received, is_clean = await read(opened(fetching))
        assert received == CONTENT or not is_clean
        fetching.on_disk_call = lambda call, name: None

    act_out(act)


def test_a_disk_that_refuses_the_first_bytes_does_not_cut_readers_off():
    async def act(simulation: Simulation) -> None:
        _, fetching = await begun(simulation)
        simulation.disturbances.note()
        refusing(fetching, "append")
        with patch.object(fetch, "READ_BYTES", 100):
            assert await read(opened(fetching), 0.5) == (CONTENT, True)
        fetching.on_disk_call = lambda call, name: None

    act_out(act)


def test_the_first_bytes_are_dropped_once_they_are_written():
    async def act(simulation: Simulation) -> None:
        _, fetching = await begun(simulation)
        pieces = opened(fetching)
        await anext(pieces)
        (transfer,) = fetching.instance.cluster.transfers._transfers.values()
        assert transfer.head
        await transfer.finished()
        assert not transfer.head
        await pieces.aclose()

    act_out(act)


def test_whoever_pulls_does_not_wait_for_the_disk_to_keep_what_is_fetched():
    """The last byte was given out when the content was durable, though the whole of it had come and was right."""

    async def act(simulation: Simulation) -> None:
        _, fetching = await begun(simulation)
        transfers, goes_on = fetching.instance.cluster.transfers, asyncio.Event()
        keep = transfers._keep

        async def keep_later(*arguments):
            await goes_on.wait()
            await keep(*arguments)

        transfers._keep = keep_later
        for content in ALL_IMAGES[0].blobs:
            answer = await simulation.client().pull_blob(fetching, "app", digest_of(content))
            assert answer.body == content
            assert fetching.instance.store.held_size(digest_of(content)) is None
        goes_on.set()
        await asyncio.sleep(1)
        assert all(fetching.instance.store.held_size(digest_of(content)) for content in ALL_IMAGES[0].blobs)

    play(act, sites=("eu", "us"))


def test_what_is_fetched_and_cannot_be_kept_is_pulled_all_the_same():
    async def act(simulation: Simulation) -> None:
        _, fetching = await begun(simulation)
        simulation.disturbances.note()
        refusing(fetching, "sync", "")
        for content in ALL_IMAGES[0].blobs:
            answer = await simulation.client().pull_blob(fetching, "app", digest_of(content))
            assert answer.body == content
        await asyncio.sleep(1)
        fetching.on_disk_call = lambda call, name: None
        assert not any(fetching.instance.store.held_size(digest_of(content)) for content in ALL_IMAGES[0].blobs)
        assert fetching.disk.content_names() == []

    play(act, sites=("eu", "us"))

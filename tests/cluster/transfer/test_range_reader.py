"""Ranges from holders: several at once, each MiB checked, and another holder where one fails."""

import asyncio
import os
import time
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace

import pytest

import registry.cluster.transfer.range_fetch as range_fetch
import registry.cluster.transfer.range_schedule as range_schedule
from registry.cluster.rpc.client import PeerRefused
from registry.cluster.rpc.messages import ChunkDigestsResponse
from registry.cluster.transfer.distrust import Distrust
from registry.cluster.transfer.range_fetch import Holders, WholeNeeded
from registry.cluster.transfer.range_reader import AHEAD_MIBS, RECENT_MIBS, SHARED_BYTES, RangeReader, cut
from registry.cluster.transfer.transfer import TransferFailed
from registry.cluster.transfer.whole_policy import WholePolicy
from registry.errors import ContentUnreachable
from registry.oci.ranges import ByteRange
from registry.ports import PeerUnreachable
from registry.storage.checks import ContentHashes
from tests.support.client import sha256

MIB = 1 << 20
CONTENT = os.urandom(24 * MIB + 77)
SIZE = len(CONTENT)
DIGEST = sha256(CONTENT)


def chunk_digests(content):
    hashes = ContentHashes()
    hashes.update(content)
    return hashes.per_mib()


class Holder:
    """One member with the content. `serve` may break off, fall silent or change bytes."""

    def __init__(self, name, content=CONTENT):
        self.member = SimpleNamespace(instance=name, shown=name)
        self.content = content
        self.stated = chunk_digests(content)
        self.size = SIZE
        self.asked = []
        self.sent_bytes = 0
        self.pause_s = self.distance_s = 0.0
        self.breaks_after = None
        self.is_silent = False

    async def chunks(self, first, end):
        for at in range(first, end, MIB // 4):
            if self.is_silent:
                await asyncio.sleep(3600)
            await asyncio.sleep(self.pause_s)
            if self.breaks_after is not None and self.sent_bytes >= self.breaks_after:
                raise PeerUnreachable("it breaks off")
            piece = self.content[at : min(at + MIB // 4, end)]
            self.sent_bytes += len(piece)
            yield piece


class Cluster:
    """The holders that a reader can reach, in the order in which they are found."""

    def __init__(self, *holders):
        self.all = {holder.member.instance: holder for holder in holders}
        self.members = SimpleNamespace(all=lambda: [holder.member for holder in holders])
        self.searches = 0

    async def holders(self, digest, uploader=None):
        self.searches += 1
        for holder in list(self.all.values()):
            yield holder.member, holder.size

    async def quarantined_holders(self, digest):
        return []

    def whereabouts(self, uploader):
        return "nowhere"

    async def chunk_digests(self, member, digest, timeout_s):
        stated = self.all[member.instance].stated
        if isinstance(stated, Exception):
            raise stated
        return ChunkDigestsResponse(SIZE, stated)

    @asynccontextmanager
    async def stream(self, member, path, headers):
        holder = self.all[member.instance]
        first, last = map(int, headers[0][1].removeprefix("bytes=").split("-"))
        holder.asked.append((first, last))
        await asyncio.sleep(holder.distance_s)
        yield SimpleNamespace(status=206, chunks=lambda: holder.chunks(first, last + 1))


def reader(*holders, wait_s=0.3, assigned=False, fetch_whole="reused"):
    cluster = Cluster(*holders)
    parts = Holders(cluster, cluster.members, cluster, Distrust(), wait_s)
    store = SimpleNamespace(held_size=lambda digest: None)
    return RangeReader(parts, store, WholePolicy(fetch_whole, lambda digest: assigned)), cluster


async def read(ranges, first, length, following=()):
    pieces = ranges.read(DIGEST, SIZE, None, ByteRange(first, length), following)
    async with aclosing(pieces):
        return b"".join([piece async for piece in pieces])


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(range_fetch, "HOLDERS_RETRY_S", 0.02)
    monkeypatch.setattr(range_fetch, "CHECK_INTERVAL_S", 0.02)
    monkeypatch.setattr(range_schedule, "SILENT_S", 0.1)
    monkeypatch.setattr(range_schedule, "SLOW_S", 0.2)


@pytest.mark.parametrize(
    ("first", "length"), [(0, 1), (MIB - 1, 2), (5 * MIB, MIB), (3 * MIB + 7, 9 * MIB), (SIZE - 5, 5), (1, SIZE - 2)]
)
async def test_a_range_has_the_bytes_of_the_content(first, length):
    ranges, _ = reader(Holder("a"), Holder("b"))
    assert await read(ranges, first, length) == CONTENT[first : first + length]
    ranges.close()


async def test_only_the_mibs_of_a_range_are_moved_and_those_once():
    holder = Holder("a")
    ranges, _ = reader(holder)
    for first in (9 * MIB + 5, 9 * MIB + 100_000, 9 * MIB):
        assert await read(ranges, first, 10) == CONTENT[first : first + 10]
    assert holder.asked == [(9 * MIB, 10 * MIB - 1)]
    ranges.close()


async def test_ranges_that_follow_are_requested_ahead():
    holder = Holder("a")
    ranges, _ = reader(holder)
    following = [ByteRange(20 * MIB, 1), ByteRange(3 * MIB, 1)]
    await read(ranges, 0, 1, following)
    await asyncio.sleep(0.1)
    assert [first // MIB for first, _ in holder.asked] == [0, 20, 3]
    assert await read(ranges, 20 * MIB, 1, following[1:]) == CONTENT[20 * MIB : 20 * MIB + 1]
    assert holder.sent_bytes == 3 * MIB
    ranges.close()


async def test_two_holders_share_the_work():
    holders = [Holder("a"), Holder("b")]
    for holder in holders:
        holder.pause_s = 0.001
    ranges, _ = reader(*holders)
    assert await read(ranges, 1, SIZE - 2) == CONTENT[1:-1]
    assert sum(holder.sent_bytes for holder in holders) == SIZE
    assert min(holder.sent_bytes for holder in holders) > SIZE / 4
    ranges.close()


async def test_requests_to_a_distant_holder_overlap():
    """Of 24 MiB in runs of 4, each of which takes 0.1 s to arrive, two are under way at once."""
    holder = Holder("a")
    holder.distance_s, begun = 0.1, time.monotonic()
    ranges, _ = reader(holder)
    assert await read(ranges, 1, SIZE - 2) == CONTENT[1:-1]
    assert time.monotonic() - begun < 0.9 * 0.1 * len(holder.asked)
    ranges.close()


async def test_a_small_range_asks_one_holder():
    holders = [Holder("a"), Holder("b")]
    ranges, _ = reader(*holders)
    await read(ranges, 0, 2 * MIB)
    assert holders[1].asked == []
    ranges.close()


async def test_a_hundred_readers_of_one_mib_cost_one_request():
    holder = Holder("a")
    ranges, _ = reader(holder)
    answers = await asyncio.gather(*(read(ranges, 7 * MIB + number, 5) for number in range(100)))
    assert answers == [CONTENT[7 * MIB + number :][:5] for number in range(100)]
    assert holder.asked == [(7 * MIB, 8 * MIB - 1)]
    ranges.close()


@pytest.mark.parametrize("at", [2 * MIB, 5 * MIB - 3])
async def test_a_corrupt_mib_is_discarded_and_another_holder_asked(at):
    """Holder a has one wrong bit: nothing of that MiB is given out, and a is left out from then on."""
    damaged = Holder("a", CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :])
    damaged.stated = chunk_digests(CONTENT)
    ranges, _ = reader(damaged, Holder("b"))
    assert await read(ranges, MIB, 8 * MIB) == CONTENT[MIB : 9 * MIB]
    assert ranges.corrupt == 1
    asked = len(damaged.asked)
    ranges.close()  # the next read searches for holders anew
    assert await read(ranges, 15 * MIB, MIB) == CONTENT[15 * MIB : 16 * MIB]
    assert len(damaged.asked) == asked
    ranges.close()


async def test_a_corrupt_mib_of_the_only_holder_ends_the_answer_before_it():
    damaged = Holder("a", CONTENT[: 3 * MIB] + bytes(1) + CONTENT[3 * MIB + 1 :])
    damaged.stated = chunk_digests(CONTENT)
    ranges, _ = reader(damaged)
    received = b""
    with pytest.raises(ContentUnreachable):
        async for piece in ranges.read(DIGEST, SIZE, None, ByteRange(MIB, 4 * MIB), ()):
            received += piece
    assert len(received) <= 2 * MIB and CONTENT[MIB:].startswith(received)
    ranges.close()


@pytest.mark.parametrize("fault", ["breaks off", "is silent", "is slow"])
async def test_another_holder_takes_over_from_one_that(fault):
    failing = Holder("a")
    if fault == "breaks off":
        failing.breaks_after = MIB
    failing.is_silent = fault == "is silent"
    failing.pause_s = 0.2 if fault == "is slow" else 0.0
    ranges, _ = reader(failing, Holder("b"))
    async with asyncio.timeout(3):
        assert await read(ranges, 0, 4 * MIB) == CONTENT[: 4 * MIB]
    assert ranges.replaced >= 1
    ranges.close()


async def test_a_holder_that_comes_back_is_waited_for():
    holder = Holder("a")
    holder.breaks_after = 2 * MIB
    ranges, _ = reader(holder, wait_s=5)
    reading = asyncio.ensure_future(read(ranges, 0, 4 * MIB))
    await asyncio.sleep(0.1)
    holder.breaks_after = None
    assert await reading == CONTENT[: 4 * MIB]
    ranges.close()


async def test_without_a_holder_the_answer_is_given_up_after_a_while():
    ranges, _ = reader()
    with pytest.raises(ContentUnreachable):
        await read(ranges, 0, 1)
    ranges.close()


async def test_holders_that_state_different_digests_are_not_believed():
    """The answer does not end cleanly, and the content is fetched whole from then on."""
    liar = Holder("a", bytes(SIZE))
    ranges, _ = reader(liar, Holder("b"))
    with pytest.raises(TransferFailed):
        await read(ranges, 0, 8 * MIB)
    assert not ranges.serves(DIGEST, SIZE, ByteRange(0, 1))
    ranges.close()


@pytest.mark.parametrize("stated", [PeerRefused("unknown question"), b"", bytes(32)])
async def test_a_holder_that_cannot_state_digests_leaves_it_to_a_whole_transfer(stated):
    holder = Holder("a")
    holder.stated = stated
    ranges, _ = reader(holder)
    with pytest.raises(WholeNeeded):
        await read(ranges, 0, 1)
    assert not await ranges.is_possible(DIGEST, SIZE, None)
    ranges.close()


async def test_a_link_of_another_size_leaves_it_to_a_whole_transfer():
    holder = Holder("a")
    holder.size = SIZE - 1
    ranges, _ = reader(holder)
    with pytest.raises(WholeNeeded):
        await read(ranges, 0, 1)
    ranges.close()


async def test_memory_is_bounded_however_slow_a_client_is():
    holder = Holder("a")
    ranges, _ = reader(holder)
    pieces = ranges.read(DIGEST, SIZE, None, ByteRange(0, SIZE - 1), ())
    await anext(pieces)
    await asyncio.sleep(0.2)
    assert holder.sent_bytes <= AHEAD_MIBS * MIB
    await pieces.aclose()
    assert len(ranges._recent) <= RECENT_MIBS
    ranges.close()


async def test_many_readers_are_each_ahead_by_less():
    holder = Holder("a")
    ranges, _ = reader(holder)
    readers = [ranges.read(DIGEST, SIZE, None, ByteRange(0, SIZE - 1), ()) for _ in range(40)]
    await asyncio.gather(*(anext(one) for one in readers))
    assert ranges._ahead == 1
    await asyncio.gather(*(one.aclose() for one in readers))
    assert ranges._readers == {}
    ranges.close()


async def test_a_reader_that_leaves_ends_no_other():
    holder = Holder("a")
    holder.pause_s = 0.01
    ranges, _ = reader(holder)
    leaving = asyncio.ensure_future(read(ranges, 0, 4 * MIB))
    staying = asyncio.ensure_future(read(ranges, 0, 4 * MIB))
    await asyncio.sleep(0.03)
    leaving.cancel()
    assert await staying == CONTENT[: 4 * MIB]
    ranges.close()


def test_the_whole_is_transferred_where_a_range_is_in_all_mibs():
    ranges = RangeReader(None, None, WholePolicy("reused", lambda digest: False))
    assert ranges.serves(DIGEST, SIZE, ByteRange(MIB, SIZE - MIB))
    assert ranges.serves(DIGEST, SIZE, ByteRange(0, 24 * MIB))
    assert not ranges.serves(DIGEST, SIZE, ByteRange(0, SIZE))
    large = ByteRange(0, SHARED_BYTES)
    assert ranges.serves(DIGEST, SHARED_BYTES, large, is_range=True)
    assert not ranges.serves(DIGEST, SHARED_BYTES, large)
    assert not ranges.serves(DIGEST, SIZE, ByteRange(MIB - 1, SIZE - MIB + 1))
    assert not ranges.serves(DIGEST, MIB, ByteRange(5, 1))


@pytest.mark.parametrize(
    ("fetch_whole", "assigned", "moved", "due"),
    [
        ("assigned", False, 10, False),
        ("assigned", True, 0, True),
        ("reused", False, 1.4, False),
        ("reused", False, 1.5, True),
        ("reused", True, 0, True),
        ("always", False, 0, True),
    ],
)
def test_the_whole_follows_by_policy(fetch_whole, assigned, moved, due):
    policy = WholePolicy(fetch_whole, lambda digest: assigned)
    policy.note_moved(DIGEST, int(moved * 1000))
    assert policy.is_due(DIGEST, 1000) == due


def test_a_range_is_cut_out_of_its_mib():
    data = bytes(range(100))
    assert cut(data, 1000, ByteRange(1000, 100)) == data
    assert cut(data, 1000, ByteRange(1007, 3)) == data[7:10]
    assert cut(data, 1000, ByteRange(900, 110)) == data[:10]
    assert cut(data, 1000, ByteRange(1099, 500)) == data[99:]

"""The bound on manifests in memory, in virtual time: who waits, who gives way, who is refused."""

import asyncio

import pytest

from registry.errors import SizeInvalid, TooManyManifests
from registry.storage import manifest_memory
from registry.storage.manifest_memory import (
    BUDGET_TIMEOUT_S,
    MIN_RESERVATION_S,
    RECEIVE_TIMEOUT_S,
    ManifestMemoryBudget,
)
from simulations.loop import VirtualLoop

MAX = 1000


@pytest.fixture
def play(monkeypatch):
    """Runs a coroutine in virtual time, with a bound of 1000 bytes."""
    monkeypatch.setattr(manifest_memory, "MAX_BYTES", MAX)
    loop = VirtualLoop()
    yield loop.run_until_complete
    loop.close()


async def receive(bound, sizes, before_s=0.0, pause_s=0.0, then_s=0.0):
    """Receive pieces with pauses between them, and do something with the whole for a while. Answers when it ended."""

    async def body():
        for size in sizes:
            await reservation.take(size)
            assert bound.held_bytes <= MAX
            await asyncio.sleep(pause_s)
        return b"x"

    await asyncio.sleep(before_s)
    async with bound.reserve() as reservation:
        await reservation.whole(body())
        await asyncio.sleep(then_s)
    return asyncio.get_running_loop().time()


async def all_of(*received):
    return await asyncio.gather(*received, return_exceptions=True)


def test_who_stops_gives_way_to_others_after_a_moment(play):
    """Three hold all there is and send nothing more. Whoever holds most goes, and nobody who is not in the way."""
    bound = ManifestMemoryBudget()
    hogs = [receive(bound, [size, 1], pause_s=20) for size in (300, 600, 99)]
    *stopped, served = play(all_of(*hogs, receive(bound, [400], before_s=0.5)))
    assert [type(one) for one in stopped] == [float, TooManyManifests, float]
    assert MIN_RESERVATION_S <= served < MIN_RESERVATION_S + 1
    assert "gave way" not in str(stopped[1]) and stopped[1].retry_after_s
    assert bound.held_bytes == 0


def test_the_slow_are_served_while_there_is_room(play):
    assert play(all_of(receive(ManifestMemoryBudget(), [1] * 50, pause_s=1.0))) == [50.0]


def test_who_takes_for_ever_is_not_waited_for(play):
    (ended,) = play(all_of(receive(ManifestMemoryBudget(), [1] * 500, pause_s=RECEIVE_TIMEOUT_S / 100)))
    assert isinstance(ended, SizeInvalid) and ended.breaks_off


def test_requests_that_all_hold_a_part_do_not_wait_for_each_other_for_ever(play):
    bound = ManifestMemoryBudget()
    ends = play(all_of(*(receive(bound, [100] * 4, pause_s=0.01) for _ in range(10))))
    served = [one for one in ends if isinstance(one, float)]
    assert len(served) >= 5 and max(served) < BUDGET_TIMEOUT_S
    assert {type(one) for one in ends} == {float, TooManyManifests}
    assert bound.held_bytes == 0


def test_who_is_being_committed_is_not_broken_off_and_who_waits_too_long_is_refused(play):
    bound = ManifestMemoryBudget()
    committed, refused = play(
        all_of(receive(bound, [MAX], then_s=3 * BUDGET_TIMEOUT_S), receive(bound, [1], before_s=1))
    )
    assert committed == 3 * BUDGET_TIMEOUT_S
    assert isinstance(refused, TooManyManifests) and refused.code == "TOOMANYREQUESTS"


def test_who_leaves_makes_room(play):
    async def leaving(bound):
        task = asyncio.ensure_future(receive(bound, [MAX], pause_s=100))
        waiting = asyncio.ensure_future(receive(bound, [MAX], before_s=0.1))
        await asyncio.sleep(1)
        task.cancel()
        return await waiting

    assert play(leaving(ManifestMemoryBudget())) < 1.1

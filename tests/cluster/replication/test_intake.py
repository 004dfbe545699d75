import itertools

import pytest

from registry.cluster.replication.intake import STRANGERS_PER_S, TURN_S, WORTHLESS_SHARE, Intake
from registry.event_loop.share import BURST_S

FRAME_S = 0.00002


class Clock:
    """Time that passes while a frame is taken and while others have their turn."""

    now = 10.0

    def steady_s(self):
        return self.now


class Flood:
    """A bus on which a frame always waits."""

    def __init__(self, frames=100_000):
        self._frames = frames

    async def listen(self):
        for _ in range(self._frames):
            yield b"frame"


@pytest.fixture
def turns(monkeypatch):
    """When the loop's other work had its turn, and for how long."""
    clock, turns = Clock(), []

    async def sleep(seconds):
        turns.append((clock.now, seconds))
        clock.now += max(seconds, 0.0001)

    monkeypatch.setattr("registry.cluster.replication.intake.asyncio.sleep", sleep)
    return clock, turns


async def take(clock, brought):
    """The share of the time that a flood took."""
    begun, taken = clock.now, 0

    async def receive(data):
        nonlocal taken
        clock.now += FRAME_S
        taken += 1
        return brought

    await Intake(Flood(), clock).run(receive)
    return taken * FRAME_S / (clock.now - begun)


def longest_stretch_s(turns):
    return max(after - before - slept for (before, slept), (after, _) in itertools.pairwise(turns))


async def test_intake_of_worthless_frames_takes_its_share_and_no_more(turns):
    assert await take(turns[0], False) == pytest.approx(WORTHLESS_SHARE, rel=0.05)
    assert longest_stretch_s(turns[1]) < BURST_S


async def test_intake_of_genuine_frames_gives_other_work_its_turn_and_is_not_held_back(turns):
    assert await take(turns[0], True) > 0.9
    assert longest_stretch_s(turns[1]) < TURN_S + 2 * FRAME_S + 0.0001


def test_intake_admits_so_many_changes_of_strangers_in_a_second():
    clock = Clock()
    intake = Intake(Flood(), clock)
    assert sum(intake.admits_stranger() for _ in range(1000)) == STRANGERS_PER_S
    clock.now += 1
    assert intake.admits_stranger()

"""How far other members' clocks are from the own one, by heartbeats that take their time and clocks that jump."""

import pytest

from registry.cluster.membership.clock_offsets import MEASUREMENT_VALID_S, SAMPLES, ClockOffsets
from registry.cluster.membership.members import Members
from registry.cluster.rpc.messages import Heartbeat
from tests.support.stand_ins import RecordedMembership

OTHER = "1" * 32


class TwoClocks:
    """A wall clock that can be set, and a steady one."""

    def __init__(self):
        self.wall_ms, self.steady = 1_700_000_000_000, 500.0

    def now_ms(self):
        return self.wall_ms

    def steady_s(self):
        return self.steady

    def entropy(self, size):
        return bytes(size)

    def wait(self, seconds):
        self.wall_ms += int(seconds * 1000)
        self.steady += seconds


class Heard:
    """One member whose heartbeats come now and then."""

    def __init__(self):
        self.clock = TwoClocks()
        self.offsets = ClockOffsets(self.clock)
        self._members = Members("0" * 32, "eu", RecordedMembership(self.offsets))
        self._sequence = 0
        self.member = None

    def hear(self, ahead_s, delay_s=0.0, incarnation=1):
        self._sequence += 1
        said_ms = self.clock.now_ms() + int(ahead_s * 1000) if ahead_s is not None else 0
        self.clock.wait(delay_s)
        beat = Heartbeat("eu", "http://o:1", "", "1", incarnation, 0, 0, bytes(16), {}, now_ms=said_ms)
        self.member = self._members.receive_heartbeat(OTHER, beat, self._sequence, on_bus=False)
        self.clock.wait(2.0 - delay_s)

    @property
    def offset_s(self):
        return self.offsets.offset_s(self.member)

    def ask(self, ahead_s, took_s):
        begun = self.clock.steady
        self.clock.wait(took_s / 2)
        answer = Heartbeat("eu", "", "", "1", 1, 0, 0, bytes(16), {}, now_ms=self.clock.now_ms() + int(ahead_s * 1000))
        self.clock.wait(took_s / 2)
        self.offsets.on_answer(self.member, begun, answer)


@pytest.fixture
async def heard():
    return Heard()


async def test_an_offset_is_that_of_the_heartbeat_that_came_fastest(heard):
    for delay_s in (0.8, 0.02, 0.5):
        heard.hear(3.0, delay_s)
    assert heard.offset_s == pytest.approx(2.98, abs=0.01)


async def test_an_offset_of_a_member_that_does_not_say_its_time_is_not_known(heard):
    heard.hear(None)
    assert heard.offset_s is None
    assert not heard.offsets.is_due(heard.member)


async def test_an_offset_follows_the_own_clock_at_once_and_the_others_within_some_heartbeats(heard):
    for _ in range(SAMPLES):
        heard.hear(0.0)
    heard.clock.wall_ms -= 60_000
    assert heard.offset_s == pytest.approx(60.0, abs=0.01)
    heard.clock.wall_ms += 60_000
    for _ in range(SAMPLES):
        heard.hear(-7.0)
    assert heard.offset_s == pytest.approx(-7.0, abs=0.01)


async def test_a_slow_bus_is_not_taken_for_a_wrong_clock(heard):
    for _ in range(SAMPLES):
        heard.hear(0.0, delay_s=1.5)
    assert heard.offset_s == pytest.approx(-1.5, abs=0.01)
    assert heard.offsets.is_due(heard.member) and not heard.offsets.is_too_far(heard.member)
    heard.ask(0.0, took_s=0.1)
    assert heard.offset_s == pytest.approx(0.0, abs=0.01)
    assert not heard.offsets.is_due(heard.member) and not heard.offsets.is_too_far(heard.member)


@pytest.mark.parametrize("ahead_s", [2.0, -2.0])
async def test_a_clock_that_is_two_seconds_off_is_too_far_once_it_was_asked_for(heard, ahead_s):
    heard.hear(ahead_s)
    assert not heard.offsets.is_too_far(heard.member)
    heard.ask(ahead_s, took_s=0.1)
    assert heard.offsets.is_too_far(heard.member)
    heard.clock.wait(MEASUREMENT_VALID_S)
    assert heard.offsets.is_due(heard.member)


async def test_an_answer_that_took_long_says_nothing(heard):
    heard.hear(2.0)
    heard.ask(2.0, took_s=3.0)
    assert heard.offsets.is_due(heard.member)


async def test_a_member_that_was_started_again_has_another_clock(heard):
    heard.hear(9.0)
    heard.ask(9.0, took_s=0.1)
    heard.hear(0.0, incarnation=2)
    assert heard.offset_s == pytest.approx(0.0, abs=0.01)

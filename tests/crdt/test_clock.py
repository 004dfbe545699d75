from hypothesis import given
from hypothesis import strategies as st

from crdt.clock import COUNTER_BITS, MAX_AHEAD_MS, HybridClock

MOMENTS = st.integers(0, 2**46)


@given(st.lists(MOMENTS, min_size=1))
def test_tick_grows_however_the_wall_clock_jumps(moments):
    clock = HybridClock()
    stamps = [clock.tick(now) for now in moments]
    assert stamps == sorted(set(stamps))


@given(st.integers(1, 2**46))
def test_tick_shows_the_wall_clock_when_it_runs_forward(now):
    assert HybridClock().tick(now) >> COUNTER_BITS == now


def test_observe_moves_past_a_remote_stamp():
    clock = HybridClock()
    clock.observe(5000 << COUNTER_BITS, now_ms=1000)
    assert clock.tick(1000) > 5000 << COUNTER_BITS


def test_observe_ignores_a_stamp_more_than_a_minute_ahead():
    clock = HybridClock()
    clock.observe((1001 + MAX_AHEAD_MS) << COUNTER_BITS, now_ms=1000)
    assert clock.tick(1000) == 1000 << COUNTER_BITS

import pytest

from registry.event_loop.share import BURST_S, LoopShare


def test_loop_share_of_work_that_never_ends_is_kept():
    share, now, worked = LoopShare(0.2), 100.0, 0.0
    while now < 200.0:
        now += 0.0003
        worked += 0.0003
        now += share.charge(0.0003, now)
    assert worked / 100.0 == pytest.approx(0.2, abs=0.001)


def test_loop_share_rests_nothing_for_a_short_burst_and_saves_up_no_more_than_that():
    share = LoopShare(0.1)
    assert share.charge(BURST_S * 0.9, 1.0) == 0.0
    assert share.charge(BURST_S, 1.0) > 0.0
    assert share.charge(BURST_S * 0.9, 10_000.0) == 0.0
    assert share.charge(BURST_S, 10_000.0) == pytest.approx(BURST_S * 0.9 / 0.1)

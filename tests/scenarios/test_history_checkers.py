"""Each checker of the histories, on histories that are made up: it passes what is right and fails what is wrong."""

import pytest

from tests.scenarios.histories.checkers import read_your_writes
from tests.scenarios.histories.history import PARTITION_SETTLE_S, History, Operation, Window

KEY = "eu/app:v1"
ONE, TWO, THREE = ("sha256:" + digit * 64 for digit in "123")


def push(value, begin, end, member=0, status=201, **more):
    return Operation("push", "eu", member, KEY, begin, end, status, value, **more)


def delete(begin, end, member=0, status=202, **more):
    return Operation("delete-tag", "eu", member, KEY, begin, end, status, **more)


def delete_manifest(value, begin, end, member=0, status=202):
    return Operation("delete-manifest", "eu", member, KEY, begin, end, status, value)


def read(value, begin, member=1, end=None, **more):
    status = 200 if value else 404
    return Operation("read", "eu", member, KEY, begin, end or begin + 0.01, status, value, **more)


STALE = {
    "an older push": [push(ONE, 1, 2), push(TWO, 3, 4), read(ONE, 5)],
    "nothing though it was pushed": [push(ONE, 1, 2), read("", 3)],
    "what a tag's delete took away": [push(ONE, 1, 2), delete(3, 4), read(ONE, 5)],
    "a manifest that was deleted": [push(ONE, 1, 2), delete_manifest(ONE, 3, 4), read(ONE, 5)],
    "absence by a delete that came before": [push(ONE, 1, 2), delete(3, 4), push(TWO, 5, 6), read("", 7)],
    "absence by the delete of an older manifest": [
        push(ONE, 1, 2), push(TWO, 3, 4), delete_manifest(ONE, 5, 6), read("", 7)
    ],
    "what no client pushed": [push(ONE, 1, 2), read(THREE, 3)],
}  # fmt: skip

CURRENT = {
    "the last push": [push(ONE, 1, 2), push(TWO, 3, 4), read(TWO, 5)],
    "an older push while the later one is not answered": [push(ONE, 1, 2), push(TWO, 3, 6), read(ONE, 5)],
    "either of two that overlap": [push(ONE, 1, 4), push(TWO, 2, 3), read(ONE, 5), read(TWO, 6, member=2)],
    "a push that is under way": [push(ONE, 1, 2), push(TWO, 3, 9), read(TWO, 5)],
    "a push without an answer, late": [push(TWO, 0, float("inf"), status=0), push(ONE, 1, 2), read(TWO, 5)],
    "absence by a delete without an answer": [push(ONE, 1, 2), delete(3, float("inf"), status=0), read("", 5)],
    "what was pushed again": [push(ONE, 1, 2), push(TWO, 3, 4), push(ONE, 5, 6), read(ONE, 7)],
    "absence by the manifest's delete": [push(ONE, 1, 2), delete_manifest(ONE, 3, 4), read("", 5)],
    "anything at another site": [push(ONE, 1, 2), push(TWO, 3, 4), Operation("read", "us", 3, KEY, 5, 6, 200, ONE)],
    "no answer at all": [push(ONE, 1, 2), Operation("read", "eu", 1, KEY, 3, 4, 503)],
}


@pytest.mark.parametrize("operations", STALE.values(), ids=STALE)
def test_read_your_writes_of_a_stale_read_is_an_anomaly(operations):
    result = read_your_writes.check(History(operations))
    assert [anomaly.at for anomaly in result.anomalies] == [operations[-1].begin]


@pytest.mark.parametrize("operations", CURRENT.values(), ids=CURRENT)
def test_read_your_writes_of_a_current_read_holds(operations):
    assert not read_your_writes.check(History(operations)).anomalies


def test_read_your_writes_under_a_hung_primary_has_no_excuse():
    history = History(STALE["an older push"], [Window("stop-primary", 0, 9, ("eu",))])
    assert read_your_writes.check(history).anomalies


@pytest.mark.parametrize(("healed", "is_anomaly"), [(4.5, False), (2.5 - PARTITION_SETTLE_S, True)])
def test_read_your_writes_under_a_partition_of_the_site_is_excused_until_it_has_settled(healed, is_anomaly):
    parted = Window("part-members", healed - 1, healed, ("eu",), parts_site="eu")
    result = read_your_writes.check(History([push(ONE, 1, 2), push(TWO, 3, 4), read(ONE, 5)], [parted]))
    assert bool(result.anomalies) is is_anomaly
    assert bool(result.excused) is not is_anomaly


def test_read_your_writes_at_a_member_out_of_rotation_is_excused():
    result = read_your_writes.check(History([push(ONE, 1, 2), push(TWO, 3, 4), read(ONE, 5, is_ready=False)]))
    assert not result.anomalies and result.excused == 1


def test_read_your_writes_of_writes_made_while_parted_expects_no_order():
    """Clocks decide between them, and may be wrong."""
    parted = Window("part-members", 0.5, 4.5, ("eu",), parts_site="eu")
    late = 4.5 + PARTITION_SETTLE_S + 3
    writes = [push(ONE, 1, 2), push(TWO, 3, 4, member=1)]
    assert not read_your_writes.check(History([*writes, read(ONE, late)], [parted])).anomalies

"""Each checker of the histories, on histories that are made up: it passes what is right and fails what is wrong."""

from dataclasses import replace

import pytest

from simulations.write_order import LISTED
from tests.scenarios.histories.checkers import (
    acknowledged,
    content,
    deletes,
    digests,
    monotonic,
    read_your_writes,
    refusals,
)
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


def test_read_your_writes_of_a_push_that_does_not_find_its_uploads_is_an_anomaly():
    refused = push(ONE, 3, 3.1, member=1, status=404, relies_since=2)
    assert read_your_writes.check(History([refused])).anomalies
    assert not read_your_writes.check(History([replace(refused, relies_since=0.0)])).anomalies
    parted = Window("part-members", 0, 2, ("eu",), parts_site="eu")
    assert not read_your_writes.check(History([refused], [parted])).anomalies


def manifest(value, begin, status=200, member=1, action="manifest", site="eu"):
    shown = value if status == 200 else ""
    return Operation(action, site, member, f"eu/app@{value}", begin, begin + 0.01, status, shown)


def test_read_your_writes_of_a_pushed_manifest_or_blob_that_is_missing_is_an_anomaly():
    for action in ("manifest", "blob"):
        lost = History([push(ONE, 1, 2), manifest(ONE, 3, 404, action=action)])
        assert read_your_writes.check(lost).anomalies
        lost.operations.append(delete_manifest(ONE, 2.5, 9))
        assert not read_your_writes.check(lost).anomalies, "a delete may have taken it away"


def test_read_your_writes_of_a_blob_whose_manifest_is_deleted_holds():
    deleted = [push(ONE, 1, 2), delete_manifest(ONE, 3, 4)]
    assert not read_your_writes.check(History([*deleted, manifest(ONE, 5, action="blob")])).anomalies
    assert read_your_writes.check(History([*deleted, manifest(ONE, 5)])).anomalies


BACKWARDS = {
    "an older push": [push(ONE, 1, 2), push(TWO, 3, 9), read(TWO, 4), read(ONE, 5)],
    "a push without an answer that was shown": [
        push(ONE, 1, 2), push(TWO, 3, float("inf"), status=0), read(TWO, 4), read(ONE, 5)
    ],
    "what was deleted": [push(ONE, 1, 2), delete(3, 9), read("", 4), read(ONE, 5)],
    "absence before a push": [push(ONE, 1, 9), read(ONE, 2), read("", 3)],
}  # fmt: skip

FORWARDS = {
    "the later push": [push(ONE, 1, 2), push(TWO, 3, 9), read(ONE, 4), read(TWO, 5)],
    "a push after absence": [push(ONE, 1, 9), delete(0.5, 0.7, status=404), read("", 2), read(ONE, 3)],
    "either of two that overlap": [push(ONE, 1, 4), push(TWO, 2, 3), read(TWO, 5), read(ONE, 6)],
    "absence by a delete": [push(ONE, 1, 2), delete(3, 9), read(ONE, 4), read("", 5)],
    "absence, and a push, and a delete later": [
        read("", 1), push(ONE, 2, 3), read(ONE, 4), push(ONE, 4.1, 4.2), delete(5, 6)
    ],
    "reads that overlap": [push(ONE, 1, 2), push(TWO, 3, 9), read(TWO, 4, end=6), read(ONE, 5)],
}  # fmt: skip


@pytest.mark.parametrize("operations", BACKWARDS.values(), ids=BACKWARDS)
def test_monotonic_reads_of_a_member_that_goes_back_are_an_anomaly(operations):
    assert monotonic.check(History(operations)).anomalies


@pytest.mark.parametrize("operations", FORWARDS.values(), ids=FORWARDS)
def test_monotonic_reads_of_a_member_that_goes_forward_hold(operations):
    assert not monotonic.check(History(operations)).anomalies


def test_monotonic_reads_of_a_site_may_go_back_for_a_moment_and_not_in_calm():
    unanswered = [push(ONE, 1, 2), push(TWO, 3, float("inf"), status=0), read(TWO, 4, member=0)]
    soon, late = read(ONE, 5, member=1), read(ONE, 5 + monotonic.CALM_S, member=1)
    assert not monotonic.check(History([*unanswered, soon])).anomalies
    assert monotonic.check(History([*unanswered, late])).anomalies
    hung = Window("stop-primary", 3, 9, ("eu",))
    assert not monotonic.check(History([*unanswered, late], [hung])).anomalies


def final(value, key=KEY, status=200, member=2, site="us", action="final-read"):
    return Operation(action, site, member, key, 100, 101, status if value or status != 200 else 404, value)


def test_acknowledged_push_that_is_lost_is_an_anomaly_at_every_site():
    assert acknowledged.check(History([push(ONE, 1, 2), final("")])).anomalies
    assert acknowledged.check(History([push(ONE, 1, 2), push(TWO, 3, 4), final(ONE)])).anomalies
    assert not acknowledged.check(History([push(ONE, 1, 2), push(TWO, 3, 4), final(TWO)])).anomalies
    assert not acknowledged.check(History([push(ONE, 1, 2), delete(3, 4), final("")])).anomalies


def test_acknowledged_push_whose_content_cannot_be_read_is_an_anomaly():
    for action in ("final-manifest", "final-blob"):
        assert acknowledged.check(
            History([push(ONE, 1, 2), manifest(ONE, 100, 404, action=action, site="us")])
        ).anomalies
        assert acknowledged.check(
            History([push(ONE, 1, 2), manifest(ONE, 100, 503, action=action, site="us")])
        ).anomalies
        assert not acknowledged.check(
            History([push(ONE, 1, 2), manifest(ONE, 100, action=action, site="us")])
        ).anomalies
    deleted = [push(ONE, 1, 2), delete_manifest(ONE, 3, 4), manifest(ONE, 100, 404, action="final-manifest")]
    assert not acknowledged.check(History(deleted)).anomalies


def test_deletes_that_are_undone_are_an_anomaly():
    assert deletes.check(History([push(ONE, 1, 2), delete(3, 4), final(ONE)])).anomalies
    assert deletes.check(
        History([push(ONE, 1, 2), delete_manifest(ONE, 3, 4), manifest(ONE, 100, action="final-manifest")])
    ).anomalies
    assert not deletes.check(History([push(ONE, 1, 2), delete(3, 4), push(ONE, 5, 6), final(ONE)])).anomalies
    assert not deletes.check(History([push(ONE, 1, 2), delete(3, 4), final("")])).anomalies


def test_digests_that_differ_after_healing_are_an_anomaly():
    assert digests.check(History(digests={0: "a", 1: "b"})).anomalies
    agreed = History([final(ONE), final(ONE, member=1)], digests={0: "a", 1: "a"}, agreed_after_s=1.0)
    assert not digests.check(agreed).anomalies
    agreed.operations.append(final(TWO, member=0))
    assert digests.check(agreed).anomalies


def test_content_with_other_bytes_is_an_anomaly():
    wrong = manifest(ONE, 1, action="blob")
    assert not content.check(History([wrong])).anomalies
    wrong.note = content.WRONG_BYTES
    assert content.check(History([wrong])).anomalies


def test_refusals_that_no_fault_explains_are_an_anomaly():
    refused = [read(ONE, 50), Operation("read", "eu", 1, KEY, 50, 50.1, 503)]
    assert refusals.check(History(refused)).anomalies
    assert refusals.check(History(refused, [Window("kill-all", 1, 50 - refusals.AFTERMATH_S - 1)])).anomalies
    assert not refusals.check(History(refused, [Window("kill-all", 1, 40)])).anomalies
    assert not refusals.check(History(refused, stalls=[Window("stall", 49, 51)])).anomalies
    assert refusals.check(History(ended=[Window("ended", 5, what="member 0")])).anomalies


def test_refusals_of_absent_things_are_answers():
    assert not refusals.check(History([read("", 1), delete(1, 2, status=404)])).checked
    assert refusals.check(History([push(ONE, 1, 2, status=404, relies_since=0.5)])).checked
    assert not refusals.check(History([push(ONE, 1, 2, status=404)])).checked


def test_read_your_writes_of_a_list_is_a_read_of_each_tag():
    def listing(shown, begin):
        return Operation("list", "eu", 1, KEY, begin, begin + 0.1, 200, shown)

    assert read_your_writes.check(History([push(ONE, 1, 2), listing("", 3)])).anomalies
    assert read_your_writes.check(History([push(ONE, 1, 2), delete(3, 4), listing(LISTED, 5)])).anomalies
    assert not read_your_writes.check(History([push(ONE, 1, 2), listing(LISTED, 3)])).anomalies
    assert not read_your_writes.check(History([push(ONE, 1, 2), delete(3, 9), listing("", 4)])).anomalies

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.catchup import (
    AskChanges,
    AskDiffs,
    AskSummaries,
    Diff,
    Pause,
    Report,
    Send,
    catch_up,
    exchange_now,
)
from crdt.errors import Malformed
from crdt.fact import tag_fact
from simulations.replica import MemoryReplica, answer, bring_together, steps_of

NAMES = [f"repository/r{number}" for number in range(12)]


def fact(replica: MemoryReplica, number: int) -> str:
    return tag_fact(f"t{number}", "sha256:" + "a" * 64, number, replica.writer).text()


def diverged(seed: int, operations: int = 40) -> tuple[MemoryReplica, MemoryReplica]:
    """Two replicas that heard some of each other's operations, in order."""
    drawn = random.Random(seed)
    pair = MemoryReplica(3), MemoryReplica(2**53 - 1)
    for number in range(operations):
        who = drawn.randrange(2)
        name = drawn.choice(NAMES)
        seen = pair[who].texts(name)
        delta = pair[who].write(
            name, [fact(pair[who], number)] * drawn.randrange(2), drawn.sample(seen, len(seen) // 2)
        )
        if drawn.random() < 0.5:
            pair[1 - who].apply(name, delta)
    return pair


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0]))
def test_two_replicas_hold_the_same_after_one_caught_up(seed, since):
    one, other = diverged(seed)
    bring_together(one, other, since)
    if since is not None:
        bring_together(other, one, since)  # by commit numbers one learns what the other has; the other asks in turn
    assert one.root_trie().digest == other.root_trie().digest
    for name in NAMES:
        assert one.texts(name) == other.texts(name)


def test_catching_up_again_exchanges_nothing():
    one, other = diverged(1)
    bring_together(one, other)
    assert bring_together(one, other).exchanged == []


def test_a_remembered_commit_number_asks_for_later_changes_only():
    one, other = diverged(2)
    report = bring_together(one, other, 0)
    assert report.commit == other.commit
    other.write(NAMES[0], [fact(other, 99)])
    report = bring_together(one, other, report.commit)
    assert report.exchanged == [NAMES[0]]
    assert fact(other, 99) in one.texts(NAMES[0])


def test_equal_replicas_are_compared_in_one_question():
    one, other = diverged(3)
    bring_together(one, other)
    assert [type(step) for step, _ in steps_of(one, other, None)] == [AskSummaries]


def test_what_agrees_at_the_second_look_is_not_exchanged():
    """Something is always on its way; it is not fetched a second time."""
    one, other = MemoryReplica(3), MemoryReplica(5)
    delta = other.write(NAMES[0], [fact(other, 1)])
    seen = []
    for step, _ in steps_of(one, other, 0):
        seen.append(type(step))
        if isinstance(step, Pause):
            one.apply(NAMES[0], delta)
    assert AskChanges in seen
    assert AskDiffs not in seen


def test_diffs_go_both_ways():
    one, other = MemoryReplica(3), MemoryReplica(5)
    one.write(NAMES[0], [fact(one, 1)])
    steps = [type(step) for step, _ in steps_of(one, other, None)]
    assert Send in steps
    assert other.texts(NAMES[0]) == [fact(one, 1)]


def test_equal_vectors_with_unequal_facts_are_reported_as_forked():
    one, other = MemoryReplica(3), MemoryReplica(3)
    one.write(NAMES[0], [fact(one, 1)])
    other.write(NAMES[0], [fact(other, 2)])
    report = bring_together(one, other)
    assert report.forked == [NAMES[0]]
    assert report.exchanged == []


def test_a_document_never_heard_of_is_brought_whole():
    one, other = MemoryReplica(3), MemoryReplica(5)
    for number in range(200):
        other.write(f"repository/x{number}", [fact(other, number)])
    bring_together(one, other)
    assert one.root_trie().digest == other.root_trie().digest


@pytest.mark.parametrize("wrong", [[], [b"1", b"2"]])
def test_an_answer_of_another_length_than_its_question_is_refused(wrong):
    one, other = MemoryReplica(3), MemoryReplica(5)
    other.write(NAMES[0], [fact(other, 1)])
    steps = catch_up(one, 0)
    steps.send(None)
    steps.send(other.changes(0))
    with pytest.raises(Malformed):
        steps.send(wrong)


def test_updates_that_an_answer_left_out_are_asked_for_again():
    one, other = MemoryReplica(3), MemoryReplica(5)
    for name in NAMES:
        other.write(name, [fact(other, 1)])
    steps = catch_up(one, None)
    said = None
    with pytest.raises(StopIteration) as ended:
        while True:
            step = steps.send(said)
            said = answer(other, one, step)
            if isinstance(step, AskDiffs):  # an answer that holds one update at a time
                said = [said[0], *(diff._replace(update=b"") for diff in said[1:])]
    assert ended.value.value.left_out == len(NAMES) - 1
    assert one.root_trie().digest == other.root_trie().digest


def test_an_answer_that_leaves_out_everything_ends_it():
    one, other = MemoryReplica(3), MemoryReplica(5)
    other.write(NAMES[0], [fact(other, 1)])
    steps = exchange_now(one, [NAMES[0]], Report())
    steps.send(None)
    with pytest.raises(Malformed):
        steps.send([Diff(other.state(NAMES[0]), b"")])


def test_operations_that_left_nothing_behind_are_caught_up_with_too():
    """A push and its delete, both missed, showed in no digest, and what came after them was held as early again and
    again. States are now compared by vector and digest."""
    one, other = MemoryReplica(1), MemoryReplica(2)
    name = NAMES[0]
    one.write(name, [fact(one, 1)])
    one.write(name, [], one.texts(name))
    assert one.state(name).digest == other.state(name).digest
    assert bring_together(other, one, since=0).pages == 1
    assert other.state(name) == one.state(name)

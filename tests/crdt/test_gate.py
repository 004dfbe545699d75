from hypothesis import given
from hypothesis import strategies as st

from crdt.delta import Delta
from crdt.gate import HOLD_MS, CausalBuffer, admit, requirements
from crdt.vector import covers


def test_an_early_item_is_released_once_nothing_is_missing_before_it():
    gate = CausalBuffer()
    gate.hold("d", {1: 2, 7: 1}, "late", 10, now_ms=0)
    assert gate.release("d", {1: 2}) == []
    assert gate.release("d", {1: 2, 7: 1}) == ["late"]
    assert (gate.items, gate.size_bytes) == (0, 0)


def test_release_keeps_what_still_misses_something():
    gate = CausalBuffer()
    gate.hold("d", {1: 1}, "one", 10, now_ms=0)
    gate.hold("d", {1: 3}, "three", 10, now_ms=5)
    assert gate.release("d", {1: 1}) == ["one"]
    assert gate.items == 1
    assert gate.overdue(HOLD_MS) == {}
    assert gate.overdue(5 + HOLD_MS) == {"d": ["three"]}


def test_documents_do_not_release_each_other():
    gate = CausalBuffer()
    gate.hold("d", {1: 1}, "x", 10, now_ms=0)
    assert gate.release("e", {1: 1}) == []


def test_an_item_is_held_for_a_moment_only():
    gate = CausalBuffer()
    gate.hold("d", {1: 1}, "x", 10, now_ms=1000)
    assert gate.overdue(1000 + HOLD_MS - 1) == {}
    assert gate.overdue(1000 + HOLD_MS) == {"d": ["x"]}
    assert gate.items == 0


def test_the_number_of_items_is_bounded_and_the_oldest_document_gives_way():
    gate = CausalBuffer(max_items=2)
    assert gate.hold("a", {1: 1}, "a1", 10, 0) == {}
    assert gate.hold("b", {1: 1}, "b1", 10, 0) == {}
    assert gate.hold("c", {1: 1}, "c1", 10, 0) == {"a": ["a1"]}
    assert gate.items == 2


def test_the_bytes_are_bounded():
    gate = CausalBuffer(max_bytes=100)
    gate.hold("a", {1: 1}, "a1", 90, 0)
    assert gate.hold("b", {1: 1}, "b1", 90, 0) == {"a": ["a1"]}
    assert gate.size_bytes == 90


@given(
    spans=st.dictionaries(st.integers(1, 4), st.tuples(st.integers(0, 5), st.integers(1, 3)), max_size=3),
    doomed=st.dictionaries(st.integers(1, 4), st.tuples(st.integers(0, 6), st.integers(1, 3)), max_size=3),
    vector=st.dictionaries(st.integers(1, 4), st.integers(0, 9)),
    needs=st.dictionaries(st.integers(1, 4), st.integers(0, 9)),
)
def test_what_is_required_is_what_is_admitted(spans, doomed, vector, needs):
    """Else an update could be let go, not be admitted, and be held again, for ever."""
    delta = Delta(spans, [], {writer: [ranges] for writer, ranges in doomed.items()})
    assert (admit(vector, delta, needs) is not None) == covers(vector, requirements(delta, needs))

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.audit import MAX_PLACES, compare, summarize
from crdt.errors import Malformed
from crdt.trie import MAX_DEPTH, Prefix, build

ENTRIES = st.sets(st.binary(min_size=16, max_size=16), max_size=150)
CLOSE = st.sets(st.integers(0, 2**10 - 1).map(lambda n: n.to_bytes(2, "big") + bytes(14)), max_size=300)
ANY = st.one_of(ENTRIES, CLOSE)


def difference(one, other, width=16):
    """What differs, the round trips it took, and the bytes of one side's answers."""
    first, second = build(one, width), build(other, width)
    walk = compare()
    places, trips, size = next(walk), 0, 0
    while True:
        trips += 1
        answers = summarize(first, places), summarize(second, places)
        size += sum(len(part) for summary in answers[1] for part in (*summary.digests, *summary.entries))
        try:
            places = walk.send(answers)
        except StopIteration as done:
            return done.value, trips, size


@given(ANY, ANY)
def test_compare_finds_exactly_what_differs(one, other):
    found, _, _ = difference(one, other)
    assert (found.first_only, found.second_only) == (one - other, other - one)


def test_compare_of_equal_tries_is_one_round_trip():
    entries = {random.Random(1).randbytes(16) for _ in range(1000)}
    assert difference(entries, entries)[1] == 1


def test_compare_of_few_differences_among_many_is_few_and_small_messages():
    drawn = random.Random(1)
    one = [drawn.randbytes(32) for _ in range(20_000)]
    other = list(one)
    for at in drawn.sample(range(20_000), 100):
        other[at] = other[at][:16] + drawn.randbytes(16)
    found, trips, size = difference(one, other, 32)
    assert len(found.first_only) == len(found.second_only) == 100
    assert trips <= 6
    assert size <= 48 * 1024


@pytest.mark.parametrize("place", [Prefix(0, MAX_DEPTH + 1), Prefix(2, 1), Prefix(-1, 4), Prefix(0, -1)])
def test_summarize_refuses_places_that_no_trie_has(place):
    with pytest.raises(Malformed):
        summarize(build([]), [place])


def test_summarize_refuses_too_many_places():
    with pytest.raises(Malformed):
        summarize(build([]), [Prefix()] * (MAX_PLACES + 1))


def test_compare_refuses_answers_that_do_not_fit_the_question():
    walk = compare()
    next(walk)
    with pytest.raises(Malformed):
        walk.send(([], []))

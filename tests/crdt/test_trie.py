import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt import trie as module
from crdt.trie import (
    MAX_LEAF,
    Branch,
    Leaf,
    Prefix,
    build,
    build_in_steps,
    descend,
    find,
    update,
    update_in_steps,
)

ENTRIES = st.sets(st.binary(min_size=16, max_size=16), max_size=200)
CLOSE = st.sets(st.integers(0, 2**9 - 1).map(lambda n: n.to_bytes(2, "big") + bytes(14)), max_size=300)
ANY = st.one_of(ENTRIES, CLOSE)


@given(ANY, st.randoms())
def test_build_depends_on_the_set_alone(entries, drawn):
    shuffled = sorted(entries)
    drawn.shuffle(shuffled)
    assert build(shuffled) == build(entries)


@given(ANY, ANY)
def test_update_equals_building_anew(before, after):
    assert update(build(before), before - after, after - before) == build(after)


@given(ANY, ANY)
def test_digests_are_equal_for_equal_sets_alone(one, other):
    assert (build(one).digest == build(other).digest) == (one == other)


@given(ANY)
def test_find_answers_the_entry_of_a_placing_hash(entries):
    trie = build(entries)
    assert trie.entries() == sorted(entries)
    assert all(find(trie, entry) == entry for entry in entries)
    assert find(trie, b"\x55" * 16) in (None, b"\x55" * 16)


@given(ANY, st.integers(0, 12), st.integers(0, 2**12 - 1))
def test_descend_holds_just_the_entries_of_its_place(entries, depth, bits):
    place = Prefix(bits & ((1 << depth) - 1), depth)
    assert descend(build(entries), place).entries() == sorted(e for e in entries if place.holds(e))


def test_a_leaf_splits_above_64_entries_and_joins_again_at_64():
    entries = [bytes([n, 0]) + bytes(14) for n in range(MAX_LEAF + 1)]
    full = build(entries)
    assert isinstance(full, Branch)
    assert isinstance(update(full, entries[:1], []), Leaf)


def test_entries_that_agree_in_every_bit_share_a_leaf():
    assert build([bytes(16)] * 100).size == 100


def test_an_update_leaves_the_old_trie_as_it_was():
    before = build([bytes([n]) + bytes(15) for n in range(200)])
    digest = before.digest
    update(before, [bytes(16)], [b"\xff" * 16])
    assert before.digest == digest == build(before.entries()).digest


def driven(steps):
    """The value that a generator returns, and how often it paused."""
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, pauses
        pauses += 1


@given(ANY, ANY, st.integers(1, 40))
def test_update_in_steps_equals_update(before, after, step):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "STEP_ENTRIES", step)
        updated, _ = driven(update_in_steps(build(before), before - after, after - before))
    assert updated == build(after)


@given(ANY, st.integers(1, 40))
def test_build_in_steps_equals_build(entries, page):
    listed = list(entries)
    pages = [listed[at : at + page] for at in range(0, len(listed), page)]
    assert driven(build_in_steps(pages))[0] == build(entries)


def test_steps_of_a_large_update_are_bounded(monkeypatch):
    """No step passes more than STEP_ENTRIES of each kind to `update`."""
    drawn = random.Random(5)
    before, added = ({drawn.randbytes(16) for _ in range(5000)} for _ in range(2))
    removed = set(sorted(before)[:3000])
    sizes = []

    def watched(node, out, new, width):
        sizes.append((len(out), len(new)))
        return update(node, out, new, width)

    monkeypatch.setattr(module, "update", watched)
    updated, pauses = driven(update_in_steps(build(before), removed, added))
    assert updated == build((before - removed) | added)
    assert max(map(max, sizes)) <= module.STEP_ENTRIES
    assert pauses >= len(sizes)


def test_a_large_trie_is_built_in_many_steps():
    drawn = random.Random(6)
    entries = [drawn.randbytes(16) for _ in range(50_000)]
    pages = [entries[at : at + 500] for at in range(0, len(entries), 500)]
    built, pauses = driven(build_in_steps(pages))
    assert built == build(entries)
    assert pauses >= len(pages)

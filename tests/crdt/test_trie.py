from hypothesis import given
from hypothesis import strategies as st

from crdt.trie import MAX_LEAF, Branch, Leaf, Prefix, build, descend, find, update

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

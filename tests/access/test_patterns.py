"""Patterns: what they match, and which is narrower, against regular expressions and by search for a witness."""

import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.access.patterns import is_pattern, is_within, matches, normalized, overlap
from simulations.access_oracle import pattern_matches, pattern_within

patterns = st.text("ab/*", min_size=1, max_size=7).map(normalized)
names = st.text("ab/", min_size=1, max_size=7)


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("*", "team/app", True),
        ("team/*", "team/app", True),
        ("team/*", "team/a/b", True),
        ("team/*", "team", False),
        ("team/*", "teams/app", False),
        ("*/app", "a/b/app", True),
        ("team", "team", True),
        ("team", "team/app", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ab*", "ab", False),
    ],
)
def test_a_star_stands_for_any_characters(pattern, name, is_match):
    assert matches(pattern, name) is is_match


@pytest.mark.parametrize(
    ("narrower", "wider", "within"),
    [
        ("team/*", "*", True),
        ("team/app", "team/*", True),
        ("team/*", "team/*", True),
        ("*", "team/*", False),
        ("team/*", "team/app", False),
        ("team/*/x", "team/*", True),
        ("*", "*a*", False),
        ("a*b*c", "a*c", True),
        ("a*c", "a*b*c", False),
        ("team*", "team/*", False),
    ],
)
def test_narrower_patterns_are_recognized(narrower, wider, within):
    assert is_within(narrower, wider) is within


@given(patterns, names)
def test_matching_is_that_of_regular_expressions(pattern, name):
    assert matches(pattern, name) == pattern_matches(pattern, name)


@given(patterns, patterns, names)
@example("a*b", "a*b", "a/b")
def test_all_that_a_narrower_pattern_matches_a_wider_one_matches(narrower, wider, name):
    if is_within(narrower, wider) and matches(narrower, name):
        assert matches(wider, name)


@given(patterns, patterns)
def test_for_a_pattern_that_is_not_narrower_there_is_a_text_that_only_it_matches(one, other):
    witness = one.replace("*", "\x01")
    assert pattern_matches(one, witness)
    assert is_within(one, other) == pattern_matches(other, witness) == pattern_within(one, other)


@given(patterns, patterns, patterns)
def test_narrower_is_a_partial_order(one, other, third):
    assert is_within(one, one)
    if is_within(one, other) and is_within(other, third):
        assert is_within(one, third)
    if is_within(one, other) and is_within(other, one):
        assert one == other


@given(patterns, patterns, names)
def test_patterns_that_match_one_name_overlap(one, other, name):
    assert overlap(one, other) == overlap(other, one)
    if matches(one, name) and matches(other, name):
        assert overlap(one, other)


SHORT = ["".join(letters) for size in range(4) for letters in itertools.product("ab", repeat=size)]
short_patterns = st.text("ab*", min_size=1, max_size=3).map(normalized)


@given(short_patterns, short_patterns)
def test_patterns_overlap_where_a_search_finds_a_text(one, other):
    texts = [a + b for a in SHORT for b in SHORT]
    assert overlap(one, other) == any(matches(one, text) and matches(other, text) for text in texts)


def test_hostile_patterns_take_no_time():
    pattern, name = "a*" * 120, "a" * 254 + "b"
    begun = time.perf_counter()
    assert not matches(pattern + "c", name) and not is_within(pattern, pattern + "c")
    assert overlap(pattern, pattern + "c")
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize("text", ["", "**", "A", "a b", "a\0", "é", "a" * 256, "a\n"])
def test_what_is_no_pattern(text):
    assert not is_pattern(text)

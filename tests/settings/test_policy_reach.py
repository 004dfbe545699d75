"""Which rules of a policy can never apply, compared with trying every short name."""

import itertools
import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import NameInvalid
from registry.oci.names import parse_repository
from registry.settings.policy_reach import SHADOWED, UNMATCHABLE, rules_without_effect


def is_name(text):
    try:
        parse_repository(text)
    except NameInvalid:
        return False
    return True


SHORT_NAMES = [
    name for length in range(1, 6) for name in map("".join, itertools.product("abc_-/", repeat=length)) if is_name(name)
]
PATTERNS = st.lists(st.sampled_from(["a", "b", "_", "/", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=3).map(
    "".join
)


@given(st.lists(PATTERNS, min_size=1, max_size=4))
def test_rules_without_effect_are_those_that_no_name_meets_first(patterns):
    expected = {}
    for number, pattern in enumerate(patterns):
        matched = [name for name in SHORT_NAMES if fnmatchcase(name, pattern)]
        if not matched:
            expected[number] = UNMATCHABLE
        elif all(any(fnmatchcase(name, before) for before in patterns[:number]) for name in matched):
            expected[number] = SHADOWED
    assert rules_without_effect(patterns) == expected


@pytest.mark.parametrize(
    "pattern", ["Prod/*", "/prod", "prod/", "prod//x", " prod", "a___b", "a.-b", "[", "ä*", "a" * 256]
)
def test_rules_without_effect_name_a_pattern_that_no_repository_can_have(pattern):
    assert rules_without_effect([pattern]) == {0: UNMATCHABLE}


@pytest.mark.parametrize("pattern", ["*", "a" * 255, "a--b", "a__b", "a.b", "[!a]*", "[]a]*", "**/x"])
def test_rules_without_effect_leave_out_a_pattern_that_some_repository_matches(pattern):
    assert rules_without_effect([pattern]) == {}


def test_rules_without_effect_of_patterns_that_multiply_end_within_a_moment():
    begun = time.process_time()
    rules_without_effect([f"*{chr(97 + n % 26)}*{n}?????????????b" for n in range(200)])
    assert time.process_time() - begun < 5

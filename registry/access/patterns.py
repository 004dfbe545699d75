"""Patterns of repository names: `*` stands for any characters, slashes and none included, wherever it stands.

`team/*` matches every name that begins with `team/`, and `*` matches every name. A pattern is *within* another one,
that is equal or narrower, where the other one matches every text that it matches. That is decided exactly: put a
character that no pattern holds in the place of each `*` of the first pattern. Only a `*` of the other one can match
that character, and what matches it matches any text in its place.
"""

import re

EVERYTHING = "*"
MAX_CHARACTERS = 255
_PATTERN = re.compile(rf"[a-z0-9._/*-]{{1,{MAX_CHARACTERS}}}\Z")
_ANY = "\0"
"""A character that no pattern and no name holds."""


def is_pattern(text: str) -> bool:
    """Return whether a text is a pattern as it is stored: of the characters of names and `*`, and no `**`."""
    return _PATTERN.match(text) is not None and "**" not in text


def normalized(text: str) -> str:
    """Return a pattern with each run of `*` as one, which matches the same."""
    return re.sub(r"\*+", EVERYTHING, text)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches a name, in time in proportion to the product of their lengths: each part
    between two `*` is looked for once, at the first place that is left."""
    first, *parts = pattern.split(EVERYTHING)
    if not parts:
        return name == first
    last, at = parts.pop(), len(first)
    end = len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in parts:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def is_within(narrower: str, wider: str) -> bool:
    """Return whether a pattern is equal to another one or narrower: all that it matches, the other one matches."""
    return matches(wider, narrower.replace(EVERYTHING, _ANY))


def overlap(one: str, other: str) -> bool:
    """Return whether some text is matched by both patterns."""
    reached = {0}  # the places in `other` up to which a text that matches `one` so far can have been matched
    reached = _skip_stars(other, reached)
    for character in one:
        if character == EVERYTHING:
            reached = set(range(min(reached), len(other) + 1))
        else:
            stayed = {at for at in reached if at < len(other) and other[at] == EVERYTHING}
            moved = {at + 1 for at in reached if at < len(other) and other[at] == character}
            reached = _skip_stars(other, stayed | moved)
            if not reached:
                return False
    return len(other) in reached


def _skip_stars(pattern: str, places: set[int]) -> set[int]:
    """Return places with those that follow a `*`, which matches nothing as well."""
    found = set(places)
    for at in places:
        while at < len(pattern) and pattern[at] == EVERYTHING:
            at += 1
            found.add(at)
    return found

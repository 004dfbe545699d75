"""Which rules of a policy can never apply: no repository name matches the pattern, or rules before it match them all.

Patterns and the grammar of repository names are regular languages, so this is decided and not guessed: a breadth-first
search walks the product of three automata (the grammar, the pattern, and the patterns before it) and looks for a name
that the first two accept and the third does not (Hopcroft, Motwani and Ullman, "Introduction to Automata Theory",
section 4.2). A state of a pattern is the set of positions in it that have been reached.
"""

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import NamedTuple

from registry.oci.names import MAX_REPOSITORY_LENGTH

MAX_STEPS = 500_000
"""Steps from one position of a pattern that may be taken for one policy, about half a second. A rule that is not
decided by then counts as one that can apply: a policy is looked at once, when an instance starts."""

UNMATCHABLE = "no repository name matches this pattern"
SHADOWED = "the rules before it match every repository that it matches"

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ALPHABET = _LETTERS + "._-/"
_WANTS, _MAY_END, _AFTER_DOT, _AFTER_LINE, _AFTER_LINES, _AFTER_DASH = range(6)
"""States of the grammar (registry.oci.names): only _MAY_END accepts."""
_SEPARATORS = {".": _AFTER_DOT, "_": _AFTER_LINE, "-": _AFTER_DASH, "/": _WANTS}


class _Token(NamedTuple):
    """One element of a pattern: a star, or one character out of some."""

    letters: frozenset[str]
    repeats: bool


Positions = frozenset[int]


class _Pattern:
    """A pattern as an automaton."""

    def __init__(self, text: str) -> None:
        self._tokens = [_token(token) for token in _split(text)]
        self._end = len(self._tokens)
        self.start = self._closed([0])

    def step(self, positions: Positions, letter: str) -> Positions:
        reached = []
        for at in positions:
            if at < self._end and letter in self._tokens[at].letters:
                reached.append(at if self._tokens[at].repeats else at + 1)
        return self._closed(reached)

    def accepts(self, positions: Positions) -> bool:
        return self._end in positions

    def accepts_all_from(self, positions: Positions) -> bool:
        """Return whether it accepts whatever follows: its last star is reached."""
        return self._end in positions and self._end - 1 in positions and self._tokens[-1].repeats

    def classes(self) -> Iterator[frozenset[str]]:
        return (token.letters for token in self._tokens)

    def _closed(self, positions: Sequence[int]) -> Positions:
        """Return positions together with those after their stars, since a star may match nothing."""
        closed = set(positions)
        for at in sorted(closed):
            while at < self._end and self._tokens[at].repeats:
                at += 1
                closed.add(at)
        return frozenset(closed)


def rules_without_effect(patterns: Sequence[str]) -> dict[int, str]:
    """Return the positions of the patterns that can never be the first to match a repository, and why."""
    search = _Search([_Pattern(text) for text in patterns])
    found = {}
    for number in range(len(patterns)):
        if not search.applies(number, range(number)):
            found[number] = SHADOWED if search.applies(number, ()) else UNMATCHABLE
    return found


class _State(NamedTuple):
    """A state of the product."""

    grammar: int
    positions: Positions
    """The reached positions of the pattern that is examined."""
    others: tuple[tuple[int, Positions], ...]
    """The reached positions of the patterns before it that can still match, by their numbers."""


class _Search:
    """The search through the product of the automata of one policy."""

    def __init__(self, patterns: Sequence[_Pattern]) -> None:
        self._patterns = patterns
        self._steps_left = MAX_STEPS

    def applies(self, number: int, before: Sequence[int]) -> bool:
        """Return whether some repository name matches a pattern and none of those before it."""
        letters = _representatives([self._patterns[one] for one in (number, *before)])
        begin = _State(_WANTS, self._patterns[number].start, tuple((one, self._patterns[one].start) for one in before))
        seen, level = {begin}, [begin]
        for _ in range(MAX_REPOSITORY_LENGTH):
            following = []
            for state in level:
                for letter in letters:
                    reached = self._step(number, state, letter)
                    if reached is None or reached in seen:
                        continue
                    if self._is_first(number, reached) or self._steps_left < 0:
                        return True
                    seen.add(reached)
                    following.append(reached)
            level = following
        return False

    def _step(self, number: int, state: _State, letter: str) -> _State | None:
        """Return the next state; None where it leads to no name that is searched for."""
        grammar = _grammar_step(state.grammar, letter)
        if grammar is None:
            return None
        self._steps_left -= len(state.positions) + sum(len(theirs) for _, theirs in state.others)
        positions = self._patterns[number].step(state.positions, letter)
        if not positions:
            return None
        others = [(one, self._patterns[one].step(theirs, letter)) for one, theirs in state.others]
        if any(self._patterns[one].accepts_all_from(theirs) for one, theirs in others):
            return None
        return _State(grammar, positions, tuple(pair for pair in others if pair[1]))

    def _is_first(self, number: int, state: _State) -> bool:
        """Return whether the name that leads here is accepted by the pattern and by none before it."""
        is_name = state.grammar == _MAY_END and self._patterns[number].accepts(state.positions)
        return is_name and not any(self._patterns[one].accepts(theirs) for one, theirs in state.others)


def _grammar_step(state: int, letter: str) -> int | None:
    if letter in _LETTERS:
        return _MAY_END
    if state == _MAY_END:
        return _SEPARATORS[letter]
    if (state, letter) == (_AFTER_LINE, "_"):
        return _AFTER_LINES
    return _AFTER_DASH if (state, letter) == (_AFTER_DASH, "-") else None


def _representatives(patterns: Sequence[_Pattern]) -> list[str]:
    """One letter of each kind: letters that no pattern tells apart lead to the same states."""
    classes = {letters for pattern in patterns for letters in pattern.classes()}
    kinds: dict[tuple[object, ...], str] = {}
    for letter in _ALPHABET:
        in_grammar = "" if letter in _LETTERS else letter
        kinds.setdefault((in_grammar, *(letter in letters for letters in classes)), letter)
    return list(kinds.values())


def _split(text: str) -> Iterator[str]:
    """The elements of a pattern, as `fnmatch` reads them: a bracket that is never closed stands for itself."""
    at = 0
    while at < len(text):
        end = at + 1
        if text[at] == "[":
            inside = at + 1 + (text[at + 1 : at + 2] == "!")
            closing = text.find("]", inside + 1)
            end = closing + 1 if closing >= 0 else end
        yield text[at:end]
        at = end


def _token(text: str) -> _Token:
    if text == "*":
        return _Token(frozenset(_ALPHABET), True)
    matches = re.compile(translate(text if text != "[" else "[[]")).match
    return _Token(frozenset(letter for letter in _ALPHABET if matches(letter)), False)

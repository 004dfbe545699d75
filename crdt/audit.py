"""Finding what two tries hold differently, in few and small messages.

Two sides answer the same questions: for a list of places (`trie.Prefix`), a summary of what lies there. Where a place
holds more than a few entries the summary is the digests four bits further down, and where those differ is asked about
next; where it holds few, it is the entries. The protocol knows no transport: `compare` is a generator that yields the
places to ask both sides about and is sent their answers. Anti-entropy and `concord diff` both use it.
"""

from collections.abc import Generator
from typing import NamedTuple

from crdt.errors import Malformed
from crdt.trie import MAX_DEPTH, Node, Prefix, descend

STEP_BITS = 4
FEW_ENTRIES = 8
SHORT_DIGEST_SIZE = 8
MAX_PLACES = 512
MAX_ASKING = 1_000_000


class Summary(NamedTuple):
    """The content of one place: either the short digests of its 16 descendants, or all its entries."""

    digests: tuple[bytes, ...]
    entries: tuple[bytes, ...]


class Difference(NamedTuple):
    """The entries that only one side has."""

    first_only: set[bytes]
    second_only: set[bytes]


def summarize(root: Node, places: list[Prefix]) -> list[Summary]:
    """Return one side's answer, a summary for each place in turn. Raises Malformed for places that no trie has."""
    if len(places) > MAX_PLACES:
        raise Malformed(f"more than {MAX_PLACES} places in one question")
    return [_summary(root, place) for place in places]


def _summary(root: Node, place: Prefix) -> Summary:
    if not 0 <= place.depth <= MAX_DEPTH or place.bits >> place.depth or place.bits < 0:
        raise Malformed("a place that no trie has")
    node = descend(root, place)
    if node.size <= FEW_ENTRIES or place.depth + STEP_BITS > MAX_DEPTH:
        return Summary((), tuple(node.entries()))
    below = (descend(root, _below(place, step)) for step in _steps())
    return Summary(tuple(child.digest[:SHORT_DIGEST_SIZE] for child in below), ())


def _steps() -> list[Prefix]:
    return [Prefix(bits, STEP_BITS) for bits in range(1 << STEP_BITS)]


def compare() -> Generator[list[Prefix], tuple[list[Summary], list[Summary]], Difference]:
    """Find what two tries hold differently: yield places, receive both sides' summaries, return the difference.

    Every yield is one round trip to each side. Raises Malformed when the answers do not fit the questions.
    """
    found = Difference(set(), set())
    asking = [Prefix()]
    while asking:
        batch, asking = asking[:MAX_PLACES], asking[MAX_PLACES:]
        first, second = yield batch
        if not len(batch) == len(first) == len(second):
            raise Malformed("an answer of another length than its question")
        for place, one, other in zip(batch, first, second, strict=True):
            if one.digests and other.digests:
                asking += _differing(place, one.digests, other.digests)
            elif one.digests or other.digests:
                asking += [_below(place, step) for step in _steps()]
            else:
                found.first_only.update(set(one.entries) - set(other.entries))
                found.second_only.update(set(other.entries) - set(one.entries))
        if len(asking) > MAX_ASKING:
            raise Malformed("more places differ than any trie has")
    return found


def _differing(place: Prefix, one: tuple[bytes, ...], other: tuple[bytes, ...]) -> list[Prefix]:
    if not len(one) == len(other) == 1 << STEP_BITS:
        raise Malformed("a summary with a wrong number of digests")
    return [_below(place, step) for step, a, b in zip(_steps(), one, other, strict=True) if a != b]


def _below(place: Prefix, step: Prefix) -> Prefix:
    return Prefix(place.bits << step.depth | step.bits, place.depth + step.depth)

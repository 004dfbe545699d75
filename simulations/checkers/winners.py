"""A pulled tag is what the winning fact points at, at the instance that answers, at some moment of the request.

The winner is computed here from the facts: the highest time, then the highest writer.
"""

from collections import defaultdict

from simulations.checkers import Violation
from simulations.history import Commit, DocumentState, Operation

Winner = str | None


def winners(seen: DocumentState) -> dict[str, str]:
    """Return the digest that each tag of a document points at."""
    best: dict[str, tuple[int, int, str]] = {}
    for (writer, _), fact in seen.facts.items():
        kind, tag = fact.key
        if kind == "t":
            best[tag] = max(best.get(tag, (0, 0, "")), (fact.time, writer, fact.digest))
    return {tag: digest for tag, (_, _, digest) in best.items()}


class Winners:
    """Remembers since when which digest wins, for each tag at each instance."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, str], list[tuple[float, Winner]]] = defaultdict(lambda: [(0.0, None)])

    def note(self, commit: Commit, now_s: float) -> None:
        """An instance's document has changed."""
        before, after = winners(commit.before), winners(commit.after)
        for tag in before.keys() | after.keys():
            if before.get(tag) != after.get(tag):
                self._since[commit.node.name, commit.repository, tag].append((now_s, after.get(tag)))

    def forget(self, node: str, now_s: float) -> None:
        """Note that an instance begins on another disk. Answers from before may still be on their way."""
        for place, known in self._since.items():
            if place[0] == node:
                known.append((now_s, None))

    def check(self, operation: Operation, digest: str) -> None:
        """A tag was pulled, and the answer has this digest."""
        known = self._since[operation.node, operation.repository, operation.reference]
        at_begin = [winner for since, winner in known if since <= operation.begun_s][-1]
        later = [winner for since, winner in known if since > operation.begun_s]
        if digest not in (at_begin, *later):
            raise Violation(f"{operation} is {digest}, and the winner {[at_begin, *later]}")

"""A tag that is there is never answered with 404: not at an instance that has it, and not, in calm weather, at one that
can reach an instance that has it."""

from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.history import Commit, History, Operation, Seen

HEARD_S = 2.5
"""After so long heartbeats have told that there is something to ask for."""


class Misses:
    """Compares what was there when a request came with what is there when its answer leaves."""

    def __init__(self, history: History, commits: Commits) -> None:
        self._history = history
        self._commits = commits
        self._since: dict[tuple[str, str, str], float] = {}

    def note(self, commit: Commit, now_s: float) -> None:
        """An instance's document has changed."""
        before, after = _tags(commit.before), _tags(commit.after)
        for tag in after - before:
            self._since[commit.node.name, commit.repository, tag] = now_s

    def tags_of(self, repository: str, now_s: float, asked: str) -> dict[str, set[str]]:
        """For each instance, the tags that it has; of others than the one asked, those it has had for a while."""
        document = f"repository/{repository}"
        found: dict[str, set[str]] = {}
        for node, seen in self._history.documents.items():
            tags = _tags(seen[document]) if document in seen else set()
            if node != asked and document in seen:
                facts = seen[document].facts.items()
                tags -= {fact.key[1] for identity, fact in facts if (document, identity) in self._commits.gone}
            bound_s = 0.0 if node == asked else HEARD_S
            found[node] = {tag for tag in tags if now_s - self._since.get((node, repository, tag), 0.0) >= bound_s}
        return found

    def check(self, operation: Operation, before: dict[str, set[str]], up: set[str], calm: bool) -> None:
        if operation.status != 404:
            return
        after = self.tags_of(operation.repository, operation.ended_s or 0.0, operation.node)
        for node in after.keys() & before.keys():
            there = operation.reference in before[node] & after[node]
            if there and (node == operation.node or (calm and node in up)):
                raise Violation(f"{operation}, while {node} had it all along")


def _tags(seen: Seen) -> set[str]:
    return {fact.key[1] for fact in seen.facts.values() if fact.key[0] == "t"}

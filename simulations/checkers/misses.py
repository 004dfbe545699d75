"""A tag that is there is never answered with 404: not at an instance that has it, and not, while requests get through,
at one that can ask an instance that has it."""

from collections.abc import Mapping

from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.history import Commit, DocumentState, History, Identity, Operation

HEARD_S = 2.5
"""After so long heartbeats have told that there is something to ask for."""
TOLD_BY_HTTP_S = 5.5
"""The same where the bus is cut: who falls silent is asked after a heartbeat and a half, within two seconds, and then
every two seconds."""


class Misses:
    """Compares what was there when a request came with what is there when its answer leaves."""

    def __init__(self, history: History, commits: Commits) -> None:
        self._history = history
        self._commits = commits
        self._since: dict[tuple[str, str, Identity], float] = {}
        self._absent: dict[tuple[str, str, str], float] = {}
        """When a tag was last seen to come out of use at an instance: it may be back by the end of a pull."""
        self._before: dict[int, dict[str, set[object]]] = {}

    def note(self, commit: Commit, now_s: float) -> None:
        """An instance's document has changed."""
        for identity in commit.after.facts.keys() - commit.before.facts.keys():
            self._since[commit.node.name, commit.document, identity] = now_s
        before, after = ({fact.key for fact in seen.facts.values()} for seen in (commit.before, commit.after))
        for kind, name in before - after:
            if kind == "t":
                self._absent[commit.node.name, commit.document, name] = now_s

    def begin(self, operation: Operation, bounds_s: Mapping[str, float]) -> None:
        """A tag is asked for. `bounds_s` are the instances that can tell of it, the one that is asked among them, and
        how long they must have had it for that."""
        self._before[operation.number] = self._there(operation, operation.begun_s, bounds_s)

    def check(self, operation: Operation, bounds_s: Mapping[str, float]) -> None:
        """The answer is here; `bounds_s` as of now."""
        before = self._before.pop(operation.number)
        if operation.status == 404:
            after = self._there(operation, operation.ended_s or 0.0, bounds_s)
            for node in after.keys() & before.keys():
                if before[node] & after[node]:
                    raise Violation(f"{operation}, while {node} had it all along")

    def _there(self, operation: Operation, now_s: float, bounds_s: Mapping[str, float]) -> dict[str, set[object]]:
        """For each instance what it has of the tag: at the instance that is asked since when there is one, and at
        others the facts that no operation has deleted."""
        document, tag = f"repository/{operation.repository}", operation.reference
        found: dict[str, set[object]] = {}
        for node, bound_s in bounds_s.items():
            seen = self._history.of(node).get(document, DocumentState())
            facts = [identity for identity, fact in seen.facts.items() if fact.key == ("t", tag)]
            if node == operation.node:
                found[node] = {self._absent.get((node, document, tag), 0.0)} if facts else set()
            else:
                told = [at for at in facts if now_s - self._since.get((node, document, at), 0.0) >= bound_s]
                found[node] = {identity for identity in told if (document, identity) not in self._commits.gone}
        return found

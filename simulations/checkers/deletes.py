"""A delete that was answered has ended everything that its instance showed of the key when it was asked, and what every
member showed that could be asked at once; and in calm weather every ready instance of its site shows that."""

from collections.abc import Container, Iterable, Mapping

from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.history import Fact, History, Identity, Operation
from simulations.node import Node

DELETES = ("delete tag", "delete manifest", "delete blob")


class Deletes:
    """Remembers what there was of a key when its delete was asked for."""

    def __init__(self, history: History, commits: Commits) -> None:
        self._history = history
        self._commits = commits
        self._doomed: dict[int, dict[Identity, Fact]] = {}

    def begin(self, operation: Operation, asked: Iterable[str]) -> None:
        """`asked` are the instance that got the request, and those that it can ask at once."""
        self._doomed[operation.number] = {
            identity: fact
            for node in asked
            for identity, fact in self._facts(node, operation.repository).items()
            if operation.may_remove(operation.repository, fact.key, fact.digest)
        }

    def doomed(self, operation: Operation) -> Mapping[Identity, Fact]:
        return self._doomed.get(operation.number, {})

    def check(self, operation: Operation) -> None:
        """As the answer of a delete arrives."""
        document = f"repository/{operation.repository}"
        for identity, fact in self._doomed.pop(operation.number, {}).items():
            if operation.acknowledged and (document, identity) not in self._commits.gone:
                raise Violation(f"{operation} left {fact}, which was there when it was asked for")

    def check_site(self, operation: Operation, nodes: list[Node], behind: Container[str]) -> None:
        """As the answer of a delete leaves, in calm weather. Some are `behind` by operations that left nothing behind,
        so that no digest told: they ask for them now."""
        (site,) = (node.site for node in nodes if node.name == operation.node)
        for node in nodes:
            if node.site == site and node.instance is not None and node.instance.ready and node.name not in behind:
                for identity in self._facts(node.name, operation.repository).keys() & self.doomed(operation).keys():
                    fact = self.doomed(operation)[identity]
                    raise Violation(f"{operation} was answered while {node.name} of the same site still shows {fact}")

    def _facts(self, node: str, repository: str) -> Mapping[Identity, Fact]:
        seen = self._history.of(node).get(f"repository/{repository}")
        return seen.facts if seen is not None else {}

"""No fact vanishes or comes back without an operation, and a live tag always has its live manifest.

A fact may go only by an operation of an instance that has a client's request for it under way, or says the same thing
again. Every instance may have it gone after that, and only after that; and once an instance has counted a fact's clock
without having the fact, it never has it again.
"""

from collections.abc import Callable

from crdt.delta import decode_delta
from crdt.fact import parse_fact
from registry.catalog.queries import KIND
from simulations.checkers import Violation
from simulations.history import Commit, Fact, History, Identity, Operation
from simulations.workload.images import PARTS


class Commits:
    """Told of every operation that instances commit, and of how their documents change."""

    def __init__(self, history: History, grace_s: float, asked_by: Callable[[str], list[str]]) -> None:
        self._history = history
        self.grace_s = grace_s
        """The grace period of unreferenced content."""
        self._asked_by = asked_by
        """The running instances that one has to ask before it collects."""
        self._said: dict[tuple[str, Identity], Fact] = {}
        self._said_s: dict[tuple[str, Identity], float] = {}
        self.gone: set[tuple[str, Identity]] = set()
        """Facts that an operation has ended."""

    def check_operation(
        self, node: str, name: str, raw: bytes, now_s: float, found_since_s: float | None = None
    ) -> dict[Identity, Fact]:
        """An instance has committed an operation of its own; or has found one of an earlier start on its disk, having
        begun at `found_since_s`. Return the facts that it asserts."""
        delta = decode_delta(raw)
        said: dict[Identity, Fact] = {}
        for writer, clock, text in delta.added:
            stated = parse_fact(text)
            said[writer, clock] = Fact((stated.kind, stated.key), stated.digest, stated.time)
            self._said[name, (writer, clock)] = said[writer, clock]
            self._said_s.setdefault((name, (writer, clock)), now_s)
        keys = {fact.key for fact in said.values()}
        under_way = list(self._history.under_way(node, now_s))
        if found_since_s is not None:
            under_way += self._history.refused(node, found_since_s)
        for writer, ranges in delta.deleted.items():
            for first, length in ranges:
                for clock in range(first, first + length):
                    fact = self._said.get((name, (writer, clock)))
                    again = fact is not None and fact.key[0] != "t" and fact.key in keys
                    if fact is None or again:
                        pass
                    else:
                        asked = [o for o in under_way if o.may_remove(name.removeprefix(KIND), fact.key, fact.digest)]
                        if not asked:
                            raise Violation(f"{node}: {fact} of {name} was deleted, and no client asked for it")
                        if fact.key[0] == "b" and all(operation.kind == "collect" for operation in asked):
                            self._check_collected(
                                node, fact, asked, now_s - self._said_s.get((name, (writer, clock)), 0.0)
                            )
                    self.gone.add((name, (writer, clock)))
        return said

    def _check_collected(self, node: str, link: Fact, asked: list[Operation], age_s: float) -> None:
        """A link was ended because no manifest names its content, and none has for the grace: neither here, nor at
        any member that the collecting instance had to ask, when it asked."""
        if age_s < self.grace_s:
            raise Violation(f"{node}: {link} was collected {age_s:.3f} s after it was said")
        if named := self._named(node, link, float("inf")):
            raise Violation(f"{node}: {link} was collected, and {named} names it")
        for operation in asked:
            found = (self._named(other, link, operation.begun_s) for other in self._asked_by(operation.node))
            relied = next((named for named in found if named), "")
            if not relied:
                return
        raise Violation(f"{node}: {link} was collected, and {relied} named it when {operation} began")

    def _named(self, node: str, link: Fact, before_s: float) -> str:
        """A live manifest of an instance, said before a time, that names a content."""
        for document, seen in self._history.of(node).items():
            for identity, fact in seen.facts.items():
                if fact.key[0] == "m" and (document, identity) not in self.gone:
                    named = fact.key[1] in PARTS and link.key[1] in PARTS[fact.key[1]].blobs
                    if named and self._said_s.get((document, identity), 0.0) < before_s:
                        return f"{fact} of {document} at {node}"
        return ""

    def is_explained(self, commit: Commit) -> bool:
        """Return whether an operation is known for every fact that went. Other instances may have to be looked at
        first: one can read what another has committed before that one's own write returns."""
        gone = commit.before.facts.keys() - commit.after.facts.keys()
        return all((commit.document, identity) in self.gone for identity in gone)

    def check(self, commit: Commit) -> None:
        """An instance's document has changed, by its own doing or another's."""
        name = commit.document
        for identity in commit.after.facts.keys() - commit.before.facts.keys():
            fact = commit.after.facts[identity]
            self._said.setdefault((name, identity), fact)
            writer, clock = identity
            if clock < commit.before.vector.get(writer, 0):
                raise Violation(f"{commit.node.name}: {fact} of {name} came back")
        for identity in commit.before.facts.keys() - commit.after.facts.keys():
            if (name, identity) not in self.gone:
                raise Violation(
                    f"{commit.node.name}: {commit.before.facts[identity]} of {name} vanished without an operation"
                )
        manifests = {fact.key[1] for fact in commit.after.facts.values() if fact.key[0] == "m"}
        for fact in commit.after.facts.values():
            if fact.key[0] == "t" and fact.digest not in manifests:
                raise Violation(f"{commit.node.name}: tag {fact.key[1]} of {name} has no live manifest")

"""The history of a run: requests of clients with their answers, and commits of instances. Checkers judge it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crdt.delta import decode_delta
from crdt.fact import CRITICAL
from registry.access.facts import DOCUMENT as ACCESS
from registry.catalog.queries import KIND
from registry.instance import Instance
from simulations.node import Node

Key = tuple[str, str]
"""A fact's kind and what it is about: a tag, or a digest."""

Identity = tuple[int, int]

UNTAGGED = "and untagged"
"""The reference of a collection that removes manifests without a tag, too."""
RELEASED_S = 15.0


@dataclass
class Operation:
    """One request of a client, or several that belong together."""

    number: int
    kind: str
    node: str
    repository: str
    reference: str
    digest: str
    begun_s: float
    ended_s: float | None = None
    status: int | None = None
    """None while it is under way, and when its answer never came."""
    said: str = ""
    """The body of an error."""
    credential: str = ""
    """The id of the credential that it was sent with; empty for none, and for the operator."""
    is_steady: bool = True
    """True if no drawn change of access control concerns that credential."""

    @property
    def document(self) -> str:
        """The document that it may change."""
        return ACCESS if self.kind == "access" else KIND + self.repository

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    def overlaps(self, other: "Operation") -> bool:
        """Return whether both were under way at some moment."""
        ends = (one.ended_s if one.ended_s is not None else float("inf") for one in (self, other))
        return max(self.begun_s, other.begun_s) <= min(ends)

    def may_remove(self, repository: str, key: Key, digest: str) -> bool:
        """Return whether this request may delete a fact about a key, which points at `digest` if it is a tag's."""
        if self.kind == "collect":
            return key[0] == "b" or (key[0] == "m" and self.reference == UNTAGGED)
        if self.repository != repository:
            return False
        match self.kind:
            case "push" | "delete tag":
                return key == ("t", self.reference)
            case "delete manifest":
                return key == ("m", self.digest) or (key[0] == "t" and digest == self.digest)
            case "delete blob":
                return key == ("b", self.digest)
            case "unmark":
                return key[0] == CRITICAL
        return False

    def __str__(self) -> str:
        told = self.status if self.status is not None else "no answer"
        return (
            f"#{self.number} {self.kind} {self.repository}:{self.reference} at {self.node} → {told} {self.said[:200]}"
        )


class Fact(NamedTuple):
    """A live fact in an instance's view."""

    key: Key
    digest: str
    """The digest that a tag points at."""
    time: int


@dataclass
class DocumentState:
    """A document as an instance was seen to have it."""

    vector: dict[int, int] = field(default_factory=dict)
    facts: dict[Identity, Fact] = field(default_factory=dict)


class Commit(NamedTuple):
    """The change of one document at an instance since it was last observed."""

    node: Node
    document: str
    before: DocumentState
    after: DocumentState
    digest: bytes
    operations: list[tuple[int, bytes]]
    """The operations that it wrote itself: their commit numbers and deltas."""
    lacking: frozenset[str]
    """Manifests whose bodies it did not have when it was looked at before."""

    @property
    def repository(self) -> str:
        return self.document.removeprefix(KIND)


class CommittedOperation(NamedTuple):
    """An operation that an instance has committed, and what stood around it."""

    at_s: float
    node: Node
    start: int
    """Of the instance, as it counts them."""
    number: int
    """Its commit number."""
    commit: Commit
    said: dict[Identity, Fact]
    bounds: Any
    """Of its time, see `checkers.stamps`."""
    waited_for: frozenset[Identity]
    """The facts it had written before, and had waited for its site to acknowledge: a member that was late is not waited
    for until it has caught up."""


class History:
    """All operations of clients, and every instance's documents as they were last seen."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.documents: dict[str, dict[str, DocumentState]] = {}
        self._upto: dict[str, int] = {}
        self._writers: dict[str, set[int]] = {}
        self._copied_from: dict[str, str] = {}
        self._told: set[tuple[str, Identity]] = set()
        """The last entries of the operations that were told of: what comes back under an earlier writer, from others
        or from an older disk, is told of once."""
        self._lacking: dict[str, frozenset[str]] = {}
        self._numbers = itertools.count(1)

    def begin(self, kind: str, node: str, repository: str, now_s: float, reference: str, digest: str) -> Operation:
        operation = Operation(next(self._numbers), kind, node, repository, reference, digest, now_s)
        self.operations.append(operation)
        return operation

    def under_way(self, node: str, now_s: float) -> Iterator[Operation]:
        """Requests that an instance may be working on: those that never got an answer, too."""
        for operation in self.operations:
            over_s = operation.ended_s if operation.status is not None else None
            if operation.kind == "collect":  # at every instance, and a while after the client has given up
                if over_s is None or now_s - over_s < RELEASED_S:
                    yield operation
            elif operation.node == node and (over_s is None or over_s >= now_s):
                yield operation

    def refused(self, node: str, before_s: float) -> Iterator[Operation]:
        """Requests that an instance refused before a time because its disk did. SQLite may have written all of a commit
        before its sync failed: the next start finds it, unless another one has been written over it."""
        nodes = {node, self._copied_from.get(node)}
        for operation in self.operations:
            over_s = operation.ended_s
            if operation.node in nodes and operation.status == 503 and over_s is not None and over_s <= before_s:
                yield operation

    def of(self, node: str) -> dict[str, DocumentState]:
        return self.documents.setdefault(node, {})

    def forget(self, node: str) -> None:
        """An instance begins on another disk than the one it was seen with. Its writers are remembered: an operation
        that was refused may be on that disk, and counts from now on."""
        self.documents.pop(node, None)
        self._upto.pop(node, None)
        self._lacking.pop(node, None)

    def copied(self, node: Node, clone: Node) -> None:
        """Another instance begins on a copy of a disk, which may hold what was refused there."""
        present = {node.instance.catalog.documents.writer} if node.instance is not None else set()
        self._copied_from[clone.name] = node.name
        self._writers[clone.name] = self._writers.get(node.name, set()) - present

    def observe(self, node: Node, instance: Instance) -> list[Commit]:
        """Look at what an instance has committed since the last look."""
        known, writers = self.of(node.name), self._writers.setdefault(node.name, set())
        writers.add(instance.catalog.documents.writer)
        rows = instance.catalog.database.rows(
            "SELECT l.number, d.id, d.name, d.digest, l.delta FROM log l JOIN documents d ON d.id = l.document "
            "WHERE l.number > ? ORDER BY l.number",
            (self._upto.get(node.name, 0),),
        )
        commits: dict[str, Commit] = {}

        def look(document: int, name: str, digest: bytes) -> None:
            before = known.get(name, DocumentState())
            known[name] = after = read_document(instance, document)
            commits[name] = Commit(node, name, before, after, digest, [], self._lacking.get(node.name, frozenset()))

        if node.name not in self._upto:  # what a copied directory has may be in snapshots
            for row in instance.catalog.database.rows("SELECT id, name, digest FROM documents ORDER BY name"):
                look(*row)
        self._upto.setdefault(node.name, 0)
        for number, document, name, digest, delta in rows:
            self._upto[node.name] = number
            if name not in commits:
                look(document, name, digest)
            spans = decode_delta(delta).spans
            entries = {(name, (writer, first + length - 1)) for writer, (first, length) in spans.items()}
            is_present = spans.keys() <= {instance.catalog.documents.writer}
            if is_present or (spans.keys() <= writers and not entries <= self._told):
                commits[name].operations.append((number, delta))
                self._told |= entries
        if rows:
            wanted = instance.catalog.database.rows("SELECT digest FROM missing_bodies")
            self._lacking[node.name] = frozenset(digest for (digest,) in wanted)
        return list(commits.values())


def read_document(instance: Instance, document: int) -> DocumentState:
    """A document's vector and live facts, from the view."""
    database = instance.catalog.database
    vector = dict(database.rows("SELECT writer, clock FROM vectors WHERE document = ?", (document,)))
    rows = database.rows("SELECT writer, clock, kind, key, digest, time FROM facts WHERE document = ?", (document,))
    facts = {(writer, clock): Fact((kind, key), *rest) for writer, clock, kind, key, *rest in rows}
    for identity, fact in facts.items():
        if fact.key[1].startswith(CRITICAL):  # the same, whether the instance understands it or not
            facts[identity] = Fact((CRITICAL, fact.key[1]), "", 0)
    return DocumentState(vector, facts)

"""The commit observer: looks at what every instance has committed, at each commit, and has the checkers judge it.

It reads the catalogs of the instances directly, and concludes nothing from what they say about themselves.
"""

from collections.abc import Mapping

from crdt.delta import decode_delta
from registry.access.facts import DOCUMENT as ACCESS
from registry.cluster.replication.acknowledgements import ACKNOWLEDGEMENT_TIMEOUT_S
from simulations.checkers.suite import Checkers
from simulations.cluster import SimulatedCluster
from simulations.faults import FORGED_TAG
from simulations.history import Commit, CommittedOperation, DocumentState, Fact, Identity, Operation
from simulations.node import Node
from simulations.violations import Violations

CONFIRMED_S = 0.015
"""A neighbour's acknowledgement has arrived by then, also where the answer goes by way of another instance."""


class CommitObserver:
    """Observes the commits of all instances of a run."""

    def __init__(self, cluster: SimulatedCluster, checkers: Checkers, violations: Violations) -> None:
        self._cluster = cluster
        self._checkers = checkers
        self._violations = violations
        self.delays_s: list[float] = []
        """From the commit of an operation to its arrival at the last instance, for each that came to be everywhere."""
        self._committed: list[CommittedOperation] = []
        self._on_their_way: dict[tuple[str, int, int], tuple[float, dict[str, float]]] = {}
        self._arrived_s: dict[tuple[str, int, int], dict[str, float]] = {}
        """When each instance was first seen to have a fact."""
        cluster.on_commit.append(self.observe)

    def observe(self, node: Node) -> None:
        """Look at what an instance has committed since it was last observed, and have it checked."""
        checkers, now = self._checkers, self._cluster.loop.now
        for commit in self._new_commits(node):
            if not checkers.commits.is_explained(commit):
                for other in self._cluster.nodes:
                    self.observe(other)
            self._violations.check(checkers.commits.check, commit)
            self._violations.check(checkers.vectors.check, commit)
            checkers.misses.note(commit, now)
            checkers.stamps.note(commit)
            checkers.winners.note(commit, now)
            if any(fact.key == ("t", FORGED_TAG) for fact in commit.after.facts.values()):
                self._violations.report(f"{node.name} has applied what an outsider has sent")
            self._violations.check(checkers.rights_first.check, node, commit)
            self._note_arrivals(node, commit.document, commit.after.vector)

    def _new_commits(self, node: Node) -> list[Commit]:
        """Return what an instance has committed, and note its own operations."""
        if node.instance is None or not node.up or not node.started:
            return []
        checkers, now, bounds = self._checkers, self._cluster.loop.now, self._checkers.stamps.bounds(node)
        commits = checkers.history.observe(node, node.instance)
        for commit in commits:
            start = node.instance.cluster.incarnation.number
            for number, delta in commit.operations:
                is_found = node.instance.catalog.documents.writer not in decode_delta(delta).spans
                since_s = node.begun_s if is_found else None
                check = checkers.commits.check_operation
                facts = self._violations.check(check, node.name, commit.document, delta, now, since_s) or {}
                if commit.document == ACCESS:
                    self._violations.check(checkers.access.check_said, node, commit.before, facts, is_found, now)
                waited_for = self._waited_for(node, commit.document)
                operation = CommittedOperation(now, node, start, number, commit, facts, bounds, waited_for)
                self._committed.append(operation)
                checkers.readiness.note(operation)
                self._violations.check(checkers.identities.note, node, node.instance, facts)
                checkers.rights_first.note(node, commit.document, () if is_found else facts)
                for identity in facts:
                    self._arrived_s[commit.document, *identity] = {node.name: now}
                    self._on_their_way[commit.document, *identity] = now, self._arrived_s[commit.document, *identity]
        return commits

    def _waited_for(self, node: Node, document: str) -> frozenset[Identity]:
        """Return the last facts that an instance has written in a document and no longer waits to be acknowledged."""
        until_s = self._cluster.loop.now - ACKNOWLEDGEMENT_TIMEOUT_S
        own = (o for o in reversed(self._committed) if o.node is node and o.commit.document == document)
        last = next((one for one in own if one.said and one.at_s <= until_s), None)
        return frozenset(last.said if last is not None else ())

    def _note_arrivals(self, node: Node, document: str, vector: Mapping[int, int]) -> None:
        now = self._cluster.loop.now
        for (name, writer, clock), (begun, places) in list(self._on_their_way.items()):
            if name == document and vector.get(writer, 0) > clock:
                places.setdefault(node.name, now)
                if len(places) >= len(self._cluster.nodes):
                    self.delays_s.append(now - begun)
                    del self._on_their_way[name, writer, clock]

    # What an answer may rest on

    def committed_for(self, operation: Operation) -> list[CommittedOperation]:
        """Return what instances of a request's site have committed in its repository since it was sent."""
        site = self._cluster.packet_simulator.site_of[operation.node]
        return [
            one
            for one in self._committed
            if one.at_s >= operation.begun_s and one.node.site == site and one.commit.document == operation.document
        ]

    def facts_for(self, operation: Operation) -> dict[Identity, Fact]:
        """Return the facts of those operations."""
        found = (one.said for one in self.committed_for(operation))
        return {identity: fact for facts in found for identity, fact in facts.items()}

    def given_up(self, committed: CommittedOperation) -> set[str]:
        """Return the nodes of an instance's site that lack what it had waited for, or have it only just now: the
        acknowledgement is on its way, and until it arrives no write waits for an instance that is late."""
        document, found = committed.commit.document, set()
        for other in self._cluster.nodes:
            vector = self._checkers.history.of(other.name).get(document, DocumentState()).vector
            for writer, clock in committed.waited_for if other.site == committed.node.site else ():
                arrived_s = self._arrived_s[document, writer, clock].get(other.name, 0.0)
                if vector.get(writer, 0) <= clock or arrived_s > self._cluster.loop.now - CONFIRMED_S:
                    found.add(other.name)
        return found

    def behind(self, operation: Operation, place: str) -> set[str]:
        """Return the nodes that lack more than what an instance has written for a request: what it had before."""
        before = [one.commit.before.vector for one in self.committed_for(operation) if one.node.name == place][:1]
        document, found = operation.document, set()
        for node in self._cluster.nodes:
            vector = self._checkers.history.of(node.name).get(document, DocumentState()).vector
            if any(vector.get(writer, 0) < clock for had in before for writer, clock in had.items()):
                found.add(node.name)
        return found

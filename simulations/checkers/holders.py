"""Linked content always has a holder: an eviction leaves as many copies as the policy asks for, a decommission leaves
one, and in the end there is one of everything.

Excused is what a disk has lost, by its digest.
"""

from collections.abc import Iterable

from registry.instance import Instance
from registry.oci.names import Digest
from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.cluster import SimulatedCluster
from simulations.history import History
from simulations.lost_content import LostContent, contents_of
from simulations.node import Node


class Holders:
    """Looks at the disks of all instances."""

    def __init__(
        self, cluster: SimulatedCluster, history: History, commits: Commits, lost: LostContent, copies: int
    ) -> None:
        self._cluster = cluster
        self._history = history
        self._commits = commits
        self._lost = lost
        self._copies = copies
        """The number of instances that are to hold each content."""
        self._disks_lost: list[tuple[float, str, set[str]]] = []
        self.asked_s: dict[tuple[str, str], float] = {}
        """When who leaves has asked last whether others hold a content."""

    def disk_lost(self, node: Node) -> None:
        """An instance's disk is about to be put back, or is gone."""
        self._disks_lost.append((self._cluster.loop.now, node.name, contents_of(node)))

    def check_evicted(self, name: str, digest: str, begun_s: float) -> None:
        """An instance has removed a content to make room, which it began to think about then. Who held it since, and is
        gone with its disk, may have answered before: of so many copies as are asked for, that one is lost."""
        for node in self._cluster.nodes:
            if node.name == name and node.instance is not None and _is_to_hold(node.instance, Digest(digest)):
                raise Violation(f"{name} has evicted {digest}, which it is to hold")
        holders = [node.name for node in self._cluster.nodes if digest in contents_of(node)]
        lost = {who for at_s, who, contents in self._disks_lost if at_s >= begun_s and digest in contents}
        if len({*holders, *lost}) < self._copies and digest in self._linked([name]) - self._lost.digests:
            raise Violation(f"{name} has evicted {digest}, and only {holders} have it still")
        if lost and not holders:
            self._lost.digests.add(digest)

    def asked(self, leaver: str, digest: str, at_s: float) -> None:
        """An instance that leaves asks whether others hold a content, or are to take it."""
        self.asked_s[leaver, digest] = at_s

    def check_left(self, leaver: Node) -> None:
        """An instance is about to be gone for good. Whose disk was lost with a content after the leaver had asked for
        that, may have held it for the leaver: no instance can know."""
        others = (contents_of(node) for node in self._cluster.nodes if node is not leaver)
        only = (contents_of(leaver) & self._linked([leaver.name])).difference(self._lost.digests, *others)
        for at_s, who, contents in self._disks_lost:
            since = {digest for digest in contents if at_s >= self.asked_s.get((leaver.name, digest), float("inf"))}
            if who != leaver.name:
                self._lost.digests |= only & since
                only -= since
        for digest in sorted(only):
            raise Violation(f"{leaver.name} leaves, and no other instance has {digest}")

    def check_end(self) -> None:
        """Once all is calm."""
        held = set().union(*map(contents_of, self._cluster.nodes))
        for digest in sorted(self._linked(node.name for node in self._cluster.nodes) - held - self._lost.digests):
            raise Violation(f"{digest} is linked in the end, and no instance has it")

    def _linked(self, names: Iterable[str]) -> set[str]:
        """Return what is linked at some instances, but for links that an operation has deleted."""
        return {
            fact.key[1]
            for name in names
            for document, seen in self._history.of(name).items()
            for identity, fact in seen.facts.items()
            if fact.key[0] == "b" and (document, identity) not in self._commits.gone
        }


def _is_to_hold(instance: Instance, digest: Digest) -> bool:
    copies, own = instance.cluster.replicator, instance.cluster.members.own
    return any(own in copies.designated(name, digest) for name, _ in instance.catalog.queries.links_of(digest))

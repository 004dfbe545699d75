"""An instance is ready only while it shows what its site shows, and counts only what it has.

One that has been told by a neighbour's heartbeat of a change, and has gone without it for a while, is not ready; one
that becomes ready after a start while nothing is lost, or answers a client before, has what its neighbours had when it
started; and of another's changes none counts as applied that is not here: by that it acknowledges writes, and knows
what to ask for.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from registry.cluster.replication.heartbeat_reactions import STALE_AFTER_S
from simulations.checkers import Violation
from simulations.checkers.commits import Commits
from simulations.cluster import SimulatedCluster
from simulations.history import CommittedOperation, History, Identity
from simulations.node import Node
from simulations.process import Process

LOOK_S = 0.2
TOLD_S = STALE_AFTER_S + 0.3
LONG_THERE_S = 2.5
"""A neighbour that has run for so long is known by its heartbeats."""


class _Start(NamedTuple):
    process: Process
    neighbours: list[Process]
    facts: set[tuple[str, Identity]]
    waits_until: float


class Readiness:
    """Looks at all instances now and then."""

    def __init__(self, cluster: SimulatedCluster, history: History, commits: Commits) -> None:
        self._cluster = cluster
        self._history = history
        self._commits = commits
        self._own: dict[Process, list[CommittedOperation]] = defaultdict(list)
        self._arrived: dict[tuple[Process, Process], int] = defaultdict(int)
        self._told_s: dict[tuple[Process, Process, int], float] = {}
        self._starts: dict[Process, _Start] = {}
        self._since_s: dict[Process, float] = {}

    def note(self, written: CommittedOperation) -> None:
        """An instance has committed an operation of its own."""
        if written.node.process is not None:
            self._own[written.node.process].append(written)

    def started(self, node: Node, wait_s: float) -> None:
        """An instance has just been started. Its clients wait for so long at most until it has caught up."""
        if node.process is None:
            return
        now = self._cluster.loop.now
        self._since_s[node.process] = now
        near = [other for other in self._living() if other is not node and other.site == node.site]
        known = [
            other for other in near if other.process and now - self._since_s.get(other.process, now) > LONG_THERE_S
        ]
        if not self._is_good:
            return  # what it says first, by which its neighbours know that it is there, may be lost
        known = [other for other in known if not self._runs_twice(other)]
        facts = {(document, at) for other in known for document, at in self._facts(other)}
        self._starts[node.process] = _Start(
            node.process, [other.process for other in known if other.process], facts, now + wait_s
        )

    def answered(self, node: Node) -> None:
        """An answer to a client leaves an instance. Raises Violation where it could be of the time before its start."""
        if node.process in self._starts and self._cluster.loop.now < self._starts[node.process].waits_until:
            self._check_start(node, {other.process for other in self._living()}, "answers a client")

    def _runs_twice(self, node: Node) -> bool:
        """Return whether a copy of its directory runs beside it: one of the two is believed and asked, and what the
        other has comes when that has begun anew."""
        ids = [other.instance.catalog.instance_id for other in self._living() if other.instance]
        return node.instance is not None and ids.count(node.instance.catalog.instance_id) > 1

    def look(self) -> None:
        """Raises Violation where an instance is ready and must not be."""
        living = self._living()
        for node in living:
            assert node.instance is not None and node.process is not None, "it lives"
            is_ready = node.instance.ready
            if node.process in self._starts:
                self._check_start(node, {other.process for other in living}, "is ready" if is_ready else "")
            for other in living:
                if other is not node:
                    self._check_told(node, other, is_ready)

    def _living(self) -> list[Node]:
        return [
            n for n in self._cluster.nodes if n.up and n.started and n.instance and n.process and not n.process.paused
        ]

    def _facts(self, node: Node) -> Iterable[tuple[str, Identity]]:
        for document, seen in self._history.of(node.name).items():
            for identity in seen.facts:
                yield document, identity

    def _lacks(self, node: Node, document: str, identity: Identity) -> bool:
        seen = self._history.of(node.name).get(document)
        writer, clock = identity
        missing = seen is None or seen.vector.get(writer, 0) <= clock
        return missing and (document, identity) not in self._commits.gone

    @property
    def _is_good(self) -> bool:
        """True while every message arrives."""
        return (
            self._cluster.packet_simulator.is_clear
            and not self._cluster.redis.stalled
            and not self._cluster.redis.absent
        )

    def _check_start(self, node: Node, living: set[Process | None], does: str) -> None:
        """`does` is what it may do only once it has caught up; empty while it does nothing of the kind."""
        assert node.process is not None, "it lives"
        start = self._starts[node.process]
        good = self._is_good
        if does or not good or not set(start.neighbours) <= living:
            del self._starts[node.process]
        if does and good and set(start.neighbours) <= living:
            for document, identity in sorted(start.facts):
                if self._lacks(node, document, identity):
                    raise Violation(f"{node.name} {does} after its start, and lacks {identity} of {document}")

    def _check_told(self, node: Node, other: Node, is_ready: bool) -> None:
        assert node.instance and other.instance and node.process and other.process, "they live"
        member = node.instance.cluster.members.get(other.instance.catalog.instance_id)
        now, own, pair = self._cluster.loop.now, self._own[other.process], (node.process, other.process)
        incarnation = other.instance.cluster.incarnation
        if member is None or len(own) != incarnation.published_seq:
            return
        if {one.start for one in own} - {incarnation.number}:
            return
        while self._arrived[pair] < len(own) and not self._misses(node, own[self._arrived[pair]]):
            self._arrived[pair] += 1
        if self._arrived[pair] < (applied := member.applied.contiguous_seq(incarnation.number)):
            raise Violation(f"{node.name} counts {applied} changes of {other.name} as applied, and lacks one of them")
        if not member.live or other.site != node.site:
            return
        for written in own[self._arrived[pair] :]:
            if written.number > member.beat.commit or written.start != member.beat.incarnation:
                continue
            told_s = self._told_s.setdefault((*pair, written.number), now)
            if is_ready and now - told_s > TOLD_S and self._misses(node, written):
                since_s = now - told_s
                raise Violation(
                    f"{node.name} is ready, and lacks what its neighbour {other.name} told of {since_s:.1f} s ago"
                )

    def _misses(self, node: Node, written: CommittedOperation) -> bool:
        return any(self._lacks(node, written.commit.document, identity) for identity in written.said)

"""Coverage marks: rarely taken paths of the registry, which only large objects or bad luck lead to, counted from
outside.

A suite of runs in which one of them was never reached has not tested it (`__main__`, `tests/simulations/test_runs.py`).
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any
from unittest.mock import patch

import crdt.catchup as catchup
import registry.cluster.replication.manifest_bodies as bodies
from registry.catalog.replica import DocumentReplica
from registry.cluster.node import Cluster
from registry.cluster.placement.write_concern import WriteConcern
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.heartbeat_reactions import HeartbeatReactions
from registry.http.oci.read_only import ReadOnlyApp
from registry.instance import Instance
from simulations.cluster import SimulatedCluster

Told = Callable[[tuple[Any, ...], Any], str]
"""Given the arguments and the result, the path that was reached, or nothing."""


COUNTERS: tuple[tuple[str, Callable[[Cluster], int]], ...] = (
    ("change announced", lambda cluster: cluster.gossip.frames["announced"]),
    ("content collected", lambda cluster: cluster.garbage_collector.removed),
    ("content evicted", lambda cluster: cluster.evictor.evicted),
)
"""Marks that the registry counts itself, for its metrics."""
WATCHED: tuple[tuple[Any, str, Told], ...] = (
    (bodies, "fits_a_frame", lambda arguments, fits: "" if fits else "change deposited"),
    (DocumentReplica, "store_snapshot", lambda arguments, result: "document compacted"),
    (DocumentReplica, "changes", lambda arguments, changes: "changes in pages" if changes.more else ""),
    (AntiEntropy, "_audit_is_due", lambda arguments, due: "audit" if due else ""),
    (HeartbeatReactions, "lags_site", lambda arguments, behind: "out of service" if behind else ""),
    (WriteConcern, "_groups", lambda arguments, groups: "push secured" if groups else ""),
    (ReadOnlyApp, "stream", lambda arguments, stream: "blob sent by a reader" if stream else ""),
)
"""Marks that the registry has no counter for: modules or classes, and functions whose results tell."""
PATHS = (
    "change deposited",
    "change announced",
    "document compacted",
    "changes in pages",
    "content collected",
    "content evicted",
    "diff left out",
    "audit",
    "out of service",
    "push secured",
    "transfer resumed",
    "blob sent by a reader",
)


class CoverageMarks:
    """Reads the counters of all instances of a run, also of those that were killed."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._network = cluster.network
        self._instances: list[Instance] = []
        cluster.on_born.append(lambda node, instance: self._instances.append(instance))

    def count(self) -> Counter[str]:
        reached = Counter({"transfer resumed": self._network.resumed_transfers})
        for instance in self._instances:
            if hasattr(instance, "cluster"):  # else it was killed before it had one
                reached.update({mark: read(instance.cluster) for mark, read in COUNTERS})
        return +reached


@contextlib.contextmanager
def counted(reached: Counter[str]) -> Iterator[None]:
    """Count the paths that are reached."""
    with contextlib.ExitStack() as stack:
        for owner, name, told in WATCHED:
            stack.enter_context(patch.object(owner, name, _watching(vars(owner)[name], told, reached)))
        stack.enter_context(patch.object(catchup, "_exchange_page", _watching_page(catchup._exchange_page, reached)))
        yield


def _watching(original: Any, told: Told, reached: Counter[str]) -> Any:
    is_static = isinstance(original, staticmethod)

    def watched(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        if path := told(arguments, result):
            reached[path] += 1
        return result

    return staticmethod(watched) if is_static else watched


def _watching_page(original: Any, reached: Counter[str]) -> Any:
    def watched(*arguments: Any) -> Generator[Any, Any, list[str]]:
        left_out: list[str] = yield from original(*arguments)
        reached["diff left out"] += bool(left_out)
        return left_out

    return watched

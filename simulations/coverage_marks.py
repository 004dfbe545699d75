"""Coverage marks: rarely taken paths of the registry, which only large objects or bad luck lead to, read from what the
registry logs and counts itself.

A suite of runs in which one of them was never reached has not tested it (`__main__`, `tests/simulations/test_runs.py`).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from registry.cluster.node import Cluster
from registry.instance import Instance
from registry.telemetry.events import LogEvent
from simulations.cluster import SimulatedCluster
from simulations.log_events import LogEvents
from simulations.node import Node

Fields = Mapping[str, Any]

COUNTERS: tuple[tuple[str, Callable[[Cluster], int]], ...] = (
    ("change announced", lambda cluster: cluster.gossip.frames["announced"]),
    ("content collected", lambda cluster: cluster.garbage_collector.removed),
    ("content evicted", lambda cluster: cluster.evictor.evicted),
    ("range read from holders", lambda cluster: cluster.ranges.answered),
    ("range went on at another holder", lambda cluster: cluster.ranges.replaced),
)
"""Marks that the registry counts itself, for its metrics."""
EVENTS: tuple[tuple[str, LogEvent, Callable[[Fields], bool]], ...] = (
    ("change deposited", LogEvent.UPDATE_DEPOSITED, lambda fields: True),
    ("document compacted", LogEvent.DOCUMENT_COMPACTED, lambda fields: True),
    ("changes in pages", LogEvent.DOCUMENTS_EXCHANGED, lambda fields: fields["pages"] > 1),
    ("diff left out", LogEvent.DOCUMENTS_EXCHANGED, lambda fields: fields["left_out"] > 0),
    ("audit", LogEvent.AUDIT_STARTED, lambda fields: True),
    ("push secured", LogEvent.WRITE_CONCERN_REACHED, lambda fields: True),
)
"""Marks that the registry logs, and the condition on the event's fields."""
OUT_OF_SERVICE = "out of service"
PATHS = (
    *(mark for mark, _ in COUNTERS),
    *(mark for mark, _, _ in EVENTS),
    OUT_OF_SERVICE,
    "transfer resumed",
    "blob sent by a reader",
    "upload relayed to its home",
    "commit sent again",
)


class CoverageMarks:
    """The marks of a run, also of instances that were killed."""

    def __init__(self, cluster: SimulatedCluster, log_events: LogEvents) -> None:
        self._cluster = cluster
        self._instances: list[Instance] = []
        self.reached: Counter[str] = Counter()
        """Marks that are counted as they are reached. Scenarios may add their own."""
        cluster.on_born.append(lambda node, instance: self._instances.append(instance))
        cluster.on_frame.append(self._look)
        for mark, event, condition in EVENTS:
            log_events.listen(event, partial(self._logged, mark, condition))

    def count(self) -> Counter[str]:
        network, nodes = self._cluster.network, (*self._cluster.nodes, *self._cluster.gone)
        groups = [group for node in nodes for group in node.process_groups]
        reached = Counter(
            {
                "transfer resumed": network.resumed_transfers,
                "blob sent by a reader": sum(group.streamed for group in groups),
                "upload relayed to its home": sum(group.relayed for group in groups),
                "commit sent again": sum(links.sent_again for node in nodes for links in node.all_links),
            }
        )
        for instance in self._instances:
            if hasattr(instance, "cluster"):  # else it was killed before it had one
                reached.update({mark: read(instance.cluster) for mark, read in COUNTERS})
        return self.reached + reached

    def _logged(self, mark: str, condition: Callable[[Fields], bool], name: str, fields: Fields) -> None:
        self.reached[mark] += condition(fields)

    def _look(self, node: Node) -> None:
        """Look at an instance that sends a frame: heartbeats do, when there is nothing else."""
        if node.instance is not None and node.started:
            self.reached[OUT_OF_SERVICE] += node.instance.cluster.reactions.lags_site()

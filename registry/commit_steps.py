"""The steps that follow a commit of a running instance, in the order of `catalog.change_sink`, each with its part."""

from crdt.change import Change
from crdt.fact import Fact
from registry.catalog.compactor import Compactor
from registry.catalog.queries import Queries
from registry.cluster.node import Cluster
from registry.oci.names import Digest
from registry.storage.content_mark import ContentMark


class CommitSteps:
    """The sink of a running instance (`ChangeSink`)."""

    def __init__(self, cluster: Cluster, queries: Queries, compactor: Compactor, mark: ContentMark) -> None:
        self._garbage_collector = cluster.garbage_collector
        self._replicator = cluster.replicator
        self._frame_sender = cluster.frame_sender
        self._bodies = cluster.bodies
        self._anti_entropy = cluster.anti_entropy
        self._delays = cluster.delays
        self._queries = queries
        self._compactor = compactor
        self._mark = mark

    def linked(self, document: str, links: list[Fact]) -> None:
        """Notify garbage collection of linked content, then schedule its replication."""
        self._garbage_collector.linked(Digest(fact.key) for fact in links)
        self._replicator.linked(document, links)

    def log_grew(self, document: str) -> None:
        """Schedule the compaction of the document."""
        self._compactor.request(document)

    def publish(self, change: Change) -> None:
        """Send the change as a frame."""
        self._frame_sender.publish(change)

    def content_added(self) -> None:
        """Advance the content mark."""
        self._mark.note_added()

    def taken_in(self, latest: tuple[int, int], sender: str | None) -> None:
        """Fetch missing manifest bodies, since a frame may have had no room for one, and measure the age of the
        change."""
        self._bodies.wake()
        time, writer = latest
        if time and not self._anti_entropy.is_bootstrapping:
            self._delays.note(sender or self._queries.instance_of(writer), time, by_frame=sender is not None)

"""Lost content: what no instance may have any more, since a disk was corrupted, put back, or is gone with its
instance."""

from simulations.cluster import SimulatedCluster
from simulations.history import History, Operation
from simulations.node import Node
from simulations.workload.images import PARTS, all_blobs


class LostContent:
    """Content and manifests that cannot be asked for any more."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self.digests: set[str] = set()
        self.doubled = False
        """True once an instance has run twice: an upload's parts may be at both, under one name."""

    @property
    def manifests(self) -> set[str]:
        return self.digests & PARTS.keys()

    def nowhere(self) -> set[str]:
        """Manifests that may be lost and that no running instance has, though facts that got away in time name them."""
        return self.manifests.difference(*map(_manifests, self._cluster.nodes))

    def concerns(self, operation: Operation) -> bool:
        """Return whether a request may fail for want of lost content."""
        if not operation.digest:
            return bool(self.manifests) and operation.kind == "pull manifest"
        parts = all_blobs(operation.digest) if operation.digest in PARTS else set()
        return bool(self.digests & {operation.digest, *parts})

    def disk_of(self, node: Node, promised: set[str], but_manifests: bool = False) -> None:
        """A disk is about to be put back to an earlier state, or is gone: what only it has is lost, unless it was
        promised that others have it."""
        others = [other for other in self._cluster.nodes if other is not node]
        self.digests |= contents_of(node).difference(promised, *map(contents_of, others))
        if not but_manifests:
            self.digests |= PARTS.keys() - promised - {digest for other in others for digest in _manifests(other)}

    def relied_on_by(self, node: Node, history: History) -> None:
        """Count as lost what an instance has linked unseen, and others have: it is waited for no more, so that may be
        collected."""
        others = [history.of(other.name) for other in self._cluster.nodes if other is not node]
        for document, seen in history.of(node.name).items():
            known = set().union(*(other[document].vector.items() for other in others if document in other))
            for (writer, clock), fact in seen.facts.items():
                if fact.key[0] == "b" and not any(by == writer and upto > clock for by, upto in known):
                    self.digests |= {fact.key[1]} - contents_of(node)


def contents_of(node: Node) -> set[str]:
    """The content on an instance's disk. A file counts by its row, which only a running instance can be asked for."""
    if node.up and node.instance is not None:
        return {digest for (digest,) in node.instance.catalog.database.rows("SELECT digest FROM content")}
    return {f"sha256:{name.rpartition('/')[2]}" for name in node.image[0] if name.startswith("blobs/sha256/")}


def _manifests(node: Node) -> set[str]:
    if node.instance is None:
        return set()
    return {digest for (digest,) in node.instance.catalog.database.rows("SELECT digest FROM manifests")}

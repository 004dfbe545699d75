"""What may be nowhere any more, because a disk was damaged, put back, or is gone with its instance."""

from simulations.history import Operation
from simulations.images import PARTS, all_blobs
from simulations.world import Node, World


class Lost:
    """Content and manifests that cannot be asked for any more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.digests: set[str] = set()
        self.doubled = False
        """Whether an instance ran twice: an upload's parts may be at both, under one name."""

    @property
    def manifests(self) -> set[str]:
        return self.digests & PARTS.keys()

    def concerns(self, operation: Operation) -> bool:
        """Whether a request may fail for it."""
        if not operation.digest:
            return bool(self.manifests) and operation.kind == "pull manifest"
        parts = all_blobs(operation.digest) if operation.digest in PARTS else set()
        return bool(self.digests & {operation.digest, *parts})

    def disk_of(self, node: Node, promised: set[str], but_manifests: bool = False) -> None:
        """A disk is about to be put back to an earlier state, or is gone: what only it has is lost, unless it was
        promised that others have it."""
        others = [other for other in self._world.nodes if other is not node]
        self.digests |= _contents(node) - {digest for other in others for digest in _contents(other)} - promised
        if not but_manifests:
            self.digests |= PARTS.keys() - {digest for other in others for digest in _manifests(other)}


def _contents(node: Node) -> set[str]:
    names = node.disk.content_names() if node.up and node.disk is not None else node.image[0]
    return {f"sha256:{name.rpartition('/')[2]}" for name in names if name.startswith("blobs/sha256/")}


def _manifests(node: Node) -> set[str]:
    if node.instance is None:
        return set()
    return {digest for (digest,) in node.instance.catalog.database.rows("SELECT digest FROM manifests")}

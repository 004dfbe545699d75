"""Equal state vectors mean equal facts, at every instance and at every step."""

from simulations.checkers import Violation
from simulations.history import Commit


class Vectors:
    """Remembers, for every vector a document was ever seen at, its state digest."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, frozenset[tuple[int, int]]], tuple[bytes, str]] = {}

    def check(self, commit: Commit) -> None:
        key = (commit.document, frozenset(commit.after.vector.items()))
        digest, where = self._digests.setdefault(key, (commit.digest, commit.node.name))
        if digest != commit.digest:
            raise Violation(f"{commit.document} differs between {where} and {commit.node.name} at equal vectors")

"""The walk over everything that a manifest refers to: an index, its manifests, and their blobs, over all levels.

Each manifest is visited once, however many indexes share it, and no body is read: what a stored manifest refers to is
in rows (`descriptors`). The walker decides what to descend into, and when to give up; the walk counts what it has read,
so that a walker can bound it and pause (`event_loop.steps`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from registry.event_loop.steps import ROWS_PER_STEP
from registry.oci.names import Digest

P = TypeVar("P")


class ManifestWalk(Generic[P]):
    """A walk that begins at some manifests. `parts_of` returns the rows of what a manifest refers to."""

    def __init__(self, roots: Iterable[Digest], parts_of: Callable[[Digest], Iterable[P]]) -> None:
        self._pending = list(roots)
        self._visited = set(self._pending)
        self._parts_of = parts_of
        self.parts_read = 0
        """Rows that were read, those that several manifests share once for each."""

    def __iter__(self) -> Iterator[Digest]:
        """Yield the manifests to visit, each once. More may be added between two."""
        while self._pending:
            yield self._pending.pop()

    def parts(self, manifest: Digest) -> Iterator[P]:
        """Yield the rows of what a manifest refers to."""
        for part in self._parts_of(manifest):
            self.parts_read += 1
            yield part

    def descend(self, manifest: Digest) -> None:
        """Visit a manifest later, unless it is visited already."""
        if manifest not in self._visited:
            self._visited.add(manifest)
            self._pending.append(manifest)

    @property
    def may_pause(self) -> bool:
        """Return whether the last part ended a bounded step, after which the event loop should turn."""
        return self.parts_read % ROWS_PER_STEP == 0

"""The causal buffer: changes that arrive before their dependencies wait here (Birman, Schiper, Stephenson, 1991).

A change is applied only when nothing before it is missing: its writer's earlier entries, and everything that writer
had seen. pycrdt would take it early too, but would keep it invisible, lose it at a restart, and let a delete overtake
its insert. Networks reorder by milliseconds, so an early change is held here, outside any document, for a moment;
dropping it at once would cost 40 to 60 times the repairs. What is still early after that is dropped, and its document
is due for a diff.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

from crdt.delta import Delta
from crdt.vector import Vector, covers

T = TypeVar("T")

HOLD_MS = 100


def admit(vector: Vector, delta: Delta, needs: Mapping[int, int]) -> Vector | None:
    """The vector of a replica at `vector` after an update, or None when something is missing before it.

    Nothing may be missing: its entries continue what is here, it deletes only what is here or comes with it, and all
    that it was written in sight of (`needs`) is here.
    """
    after = dict(vector)
    for writer, (first, length) in delta.spans.items():
        known = vector.get(writer, 0)
        if first > known:
            return None
        after[writer] = max(known, first + length)
    return after if covers(vector, needs) and covers(after, _doomed(delta)) else None


def requirements(delta: Delta, needs: Mapping[int, int]) -> Vector:
    """Return the least vector that `admit` requires: `needs`, and the dependencies of the update itself."""
    required = dict(needs)
    for writer, (first, _) in delta.spans.items():
        required[writer] = max(required.get(writer, 0), first)
    for writer, end in _doomed(delta).items():
        if end > sum(delta.spans.get(writer, (0, 0))):
            required[writer] = max(required.get(writer, 0), end)
    return required


def _doomed(delta: Delta) -> Vector:
    """The clock up to which an update deletes entries, for each writer."""
    return {writer: sum(ranges[-1]) for writer, ranges in delta.deleted.items()}


class _Held(NamedTuple, Generic[T]):
    needs: Vector
    item: T
    size_bytes: int
    since_ms: int


class CausalBuffer(Generic[T]):
    """Early items by document, bounded in number and bytes together; the oldest document gives way first."""

    def __init__(self, max_items: int = 4096, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, deque[_Held[T]]] = OrderedDict()
        self.items = 0
        self.size_bytes = 0

    def hold(self, document: str, needs: Vector, item: T, size_bytes: int, now_ms: int) -> dict[str, list[T]]:
        """Keep `item` until its document's vector covers `needs`.

        Return the items, by document, that had to be dropped to make room: those documents are due for a diff.
        """
        self._held.setdefault(document, deque()).append(_Held(needs, item, size_bytes, now_ms))
        self.items += 1
        self.size_bytes += size_bytes
        dropped = {}
        while self.items > self._max_items or self.size_bytes > self._max_bytes:
            oldest = next(iter(self._held))
            dropped[oldest] = self.drop(oldest)
        return dropped

    def release(self, document: str, vector: Mapping[int, int]) -> list[T]:
        """Take out the items of `document` that nothing is missing before, now that it has reached `vector`."""
        held = self._held.get(document, deque())
        ready = [entry for entry in held if covers(vector, entry.needs)]
        for entry in ready:
            held.remove(entry)
            self.items -= 1
            self.size_bytes -= entry.size_bytes
        if not held:
            self._held.pop(document, None)
        return [entry.item for entry in ready]

    def overdue(self, now_ms: int) -> dict[str, list[T]]:
        """Take out the documents that have held something for longer than HOLD_MS. Return their items."""
        late = [name for name, held in self._held.items() if now_ms - held[0].since_ms >= HOLD_MS]
        return {name: self.drop(name) for name in late}

    def drop(self, document: str) -> list[T]:
        """Take out what is held of one document."""
        held = self._held.pop(document, deque())
        self.items -= len(held)
        self.size_bytes -= sum(entry.size_bytes for entry in held)
        return [entry.item for entry in held]

"""Which facts the author of a fact had seen: reachability in the graph that `after` spans.

The graph has no cycles where instances make it, since a fact names ids that were drawn at random before its own. One
with cycles can only be crafted, and has a defined meaning too: reachability is computed until nothing changes.
"""

from collections.abc import Collection, Iterable

from registry.access.facts import Statement, text_of


class History:
    """Statements, each id once, the seen before those that had seen them."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self.by_id = _each_id_once(statements)
        self.order = self._in_order()
        self._places: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def heads(self) -> list[str]:
        """Return the ids that no other statement names: to have seen these is to have seen everything."""
        named = {id for statement in self.order for id in statement.origin.after if id != statement.origin.id}
        return sorted(self.by_id.keys() - named)

    def mark(self, ids: Collection[str]) -> None:
        """Prepare `has_seen` for these ids: a bit for each, which flows to all that has seen it."""
        self._places = {id: place for place, id in enumerate(sorted(ids))}
        seen = self._seen = dict.fromkeys(self.by_id, 0)
        bits = {id: 1 << self._places[id] if id in self._places else 0 for id in self.by_id}
        changed = True
        while changed:  # once, and once more where the graph has cycles
            changed = False
            for statement in self.order:
                id = statement.origin.id
                mask = seen[id]
                for before in statement.origin.after:
                    if before in bits:
                        mask |= seen[before] | bits[before]
                if mask != seen[id]:
                    seen[id] = mask
                    changed = self._has_cycles

    def has_seen(self, statement: Statement, other: Statement) -> bool:
        """Return whether the author of one statement had seen another one, which is marked."""
        return bool(self._seen[statement.origin.id] >> self._places[other.origin.id] & 1)

    def _in_order(self) -> list[Statement]:
        """Return the statements in a topological order; those of cycles, and what has seen them, last."""
        waits = {id: {*one.origin.after} & self.by_id.keys() for id, one in self.by_id.items()}
        followers: dict[str, list[str]] = {}
        for id, before in waits.items():
            for one in before:
                followers.setdefault(one, []).append(id)
        missing = {id: len(before) for id, before in waits.items()}
        ready = sorted((id for id, count in missing.items() if not count), reverse=True)
        order: list[str] = []
        while ready:
            id = ready.pop()
            order.append(id)
            for follower in followers.get(id, ()):
                missing[follower] -= 1
                if not missing[follower]:
                    ready.append(follower)
        self._has_cycles = len(order) < len(self.by_id)
        rest = sorted(self.by_id.keys() - set(order)) if self._has_cycles else []
        return [self.by_id[id] for id in (*order, *rest)]


def _each_id_once(statements: Iterable[Statement]) -> dict[str, Statement]:
    """Return statements by id. Healing a fork asserts a fact again under another writer (`catalog.forks`): of several
    texts with one id, the first in order counts, at every instance."""
    found: dict[str, Statement] = {}
    for statement in statements:
        before = found.get(statement.origin.id)
        if before is None or text_of(statement) < text_of(before):
            found[statement.origin.id] = statement
    return found

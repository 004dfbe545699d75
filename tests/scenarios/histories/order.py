"""What is certain about the order of writes to one tag.

A write *precedes* another one when it was answered before the other one began, and the member that took the other one
must have shown it by then. Only then does the registry promise that the later one replaces it: writes that overlap, or
that were made while their site was parted, may be decided by clocks, which the harness sets wrong. A write without an
answer may be carried out at any time, so it precedes nothing.
"""

from collections.abc import Iterable, Sequence

from tests.scenarios.histories.history import WRITES, History, Operation


class TagOrder:
    """The writes of one tag."""

    def __init__(self, history: History, writes: Iterable[Operation]) -> None:
        self._history = history
        self.writes = [write for write in writes if write.action in WRITES]
        self._pushes: dict[str, list[Operation]] = {}
        for write in self.writes:
            if write.action == "push" and may_have_happened(write):
                self._pushes.setdefault(write.value, []).append(write)
        self._deletes = [w for w in self.writes if w.action.startswith("delete") and may_have_happened(w)]

    def acknowledged(self) -> list[Operation]:
        return [write for write in self.writes if write.is_acknowledged]

    def precedes(self, one: Operation, other: Operation) -> bool:
        if one.end >= other.begin or one is other:
            return False
        if one.member == other.member:
            return True
        together = one.site == other.site and not self._history.is_parted(one.site, one.begin, other.end)
        return together and other.is_ready

    def is_possible(self, value: str, after: Operation, until: float) -> bool:
        """Whether a tag may show a value, or nothing, to a read that must show `after` or something later."""
        return any(not self.precedes(write, after) for write in self._sources(value, after) if write.begin < until)

    def is_older(self, value: str, than: str) -> bool:
        """Whether all that can have made a tag show a value precedes all that can have made it show another one."""
        sources = self._pushes.get(value, []) if value else self._deletes
        others = self._pushes.get(than, []) if than else self._deletes
        if not others or (than and not sources and value):
            return False
        return all(self.precedes(source, other) for source in sources for other in others)

    def was_pushed(self, value: str) -> bool:
        return value in self._pushes

    def _sources(self, value: str, after: Operation) -> Sequence[Operation]:
        """The writes that can make a tag show a value in the place of what `after` made it show."""
        if value:
            return self._pushes.get(value, [])
        return [delete for delete in self._deletes if self._can_delete(delete, after)]

    def _can_delete(self, delete: Operation, after: Operation) -> bool:
        """A manifest's delete takes a tag away only where the tag can have pointed at that manifest by then."""
        if delete.action == "delete-tag" or delete is after:
            return True
        return any(not self.precedes(push, after) for push in self._pushes.get(delete.value, []))


def may_have_happened(write: Operation) -> bool:
    """A request that was refused for good changed nothing; one that failed or got no answer may have."""
    return not 400 <= write.status < 500


def constrains(write: Operation, value: str) -> bool:
    """Whether an acknowledged write restricts a read that shows this value. A manifest's delete only says that this
    manifest is not shown."""
    return write.action != "delete-manifest" or write.value == value

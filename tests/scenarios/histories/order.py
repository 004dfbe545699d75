"""What is certain about the order of writes to one tag, or to one manifest.

A write *precedes* another one when it was answered before the other one began, and the member that took the other one
must have shown it by then. Only then does the registry promise that the later one replaces it: writes that overlap, or
that were made while their site was parted, may be decided by clocks, which the harness sets wrong. A write without an
answer may be carried out at any time, so it precedes nothing.
"""

from collections.abc import Iterable, Sequence

from tests.scenarios.histories.history import LISTED, WRITES, History, Operation


class TagOrder:
    """The writes of one tag."""

    def __init__(self, history: History, writes: Iterable[Operation]) -> None:
        self._history = history
        self.writes = [write for write in writes if write.action in WRITES]
        self._pushes: dict[str, list[Operation]] = {}
        for write in self.writes:
            if write.action == "push" and may_have_happened(write):
                self._pushes.setdefault(write.value, []).append(write)
        self._all = [push for pushes in self._pushes.values() for push in pushes]
        self._deletes = [w for w in self.writes if w.action.startswith("delete") and may_have_happened(w)]

    def acknowledged(self) -> list[Operation]:
        return [write for write in self.writes if write.is_acknowledged]

    def precedes(self, one: Operation, other: Operation) -> bool:
        """Whether a write was certainly shown where another one was made, before that began."""
        if one.end >= other.begin or one is other:
            return False
        if one.member == other.member:
            return True
        together = one.site == other.site and not self._history.is_parted(one.site, one.begin, other.end)
        return together and other.is_ready

    def forbids(self, write: Operation, read: Operation) -> bool:
        """Whether a read shows what an acknowledged write must have replaced, if the read must show the write."""
        if write.action == "delete-manifest" and write.value != read.value:
            return False  # it says only that this manifest is not shown
        if read.action.endswith("blob") and read.value:
            return False  # a blob may stay when its manifest is gone
        return not any(
            not self.precedes(source, write) for source in self._sources(read.value, write) if source.begin < read.end
        )

    def is_older(self, read: Operation, before: Operation) -> bool:
        """Whether all that can have made a tag show what a read shows precedes all that can have made it show what
        another read had shown before. That a tag was never pushed precedes everything."""
        shown = [write for write in self._all_sources(before.value) if write.begin < before.end]
        if not before.value and not any(push.is_acknowledged and self.precedes(push, before) for push in self._all):
            return False  # it may have shown that the tag was never pushed
        now = [write for write in self._all_sources(read.value) if write.begin < read.end]
        if not shown or (read.value and not now):
            return False  # nobody pushed that: read_your_writes says so
        return all(self.precedes(one, other) for one in now for other in shown)

    def _sources(self, value: str, after: Operation) -> Sequence[Operation]:
        """The writes that can make a tag show a value in the place of what `after` made it show."""
        if value:
            return self._all_sources(value)
        return [delete for delete in self._deletes if self._can_delete(delete, after)]

    def _all_sources(self, value: str) -> Sequence[Operation]:
        if value == LISTED:
            return self._all
        return self._pushes.get(value, []) if value else self._deletes

    def _can_delete(self, delete: Operation, after: Operation) -> bool:
        """A manifest's delete takes a tag away only where the tag can have pointed at that manifest by then."""
        if delete.action == "delete-tag" or delete is after:
            return True
        return any(not self.precedes(push, after) for push in self._pushes.get(delete.value, []))


def may_have_happened(write: Operation) -> bool:
    """A request that was refused for good changed nothing; one that failed or got no answer may have."""
    return not 400 <= write.status < 500

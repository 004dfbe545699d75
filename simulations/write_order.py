"""The order of writes to one tag, or to one manifest, as far as it is certain to an outside observer.

A write *precedes* another one when it was answered before the other one began, and the member that took the other one
must have shown it by then. Only then does the registry promise that the later one replaces it: writes that overlap, or
that were made while their site was parted, may be decided by clocks, and those may be wrong. A write without an answer
may be carried out at any time, so it precedes nothing.

Checkers of simulations and of real processes (`tests.scenarios.histories`) share this.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol

WRITES = ("push", "delete-tag", "delete-manifest")
LISTED = "listed"
"""The value of a read that shows only that something exists."""


class Request(Protocol):
    """One request of a client, and its answer."""

    @property
    def action(self) -> str:
        """One of WRITES, or any kind of read. The kinds that end with "blob" read a blob under its manifest's key."""

    @property
    def site(self) -> str: ...

    @property
    def member(self) -> Hashable: ...

    @property
    def begin(self) -> float: ...

    @property
    def end(self) -> float:
        """Infinite where no answer came."""

    @property
    def status(self) -> int:
        """Of the answer; 0 where none came."""

    @property
    def value(self) -> str:
        """The digest that was written, deleted or shown; empty where nothing was shown."""

    @property
    def is_ready(self) -> bool:
        """True if a balancer would have sent the request to this member when it began."""


class Order:
    """The writes of one tag or manifest. `is_parted` returns whether members of a site were parted from each other, or
    had been just before, at some time between two times."""

    def __init__(self, is_parted: Callable[[str, float, float], bool], requests: Iterable[Request]) -> None:
        self._is_parted = is_parted
        self.writes = [request for request in requests if request.action in WRITES]
        self._pushes: dict[str, list[Request]] = {}
        for write in self.writes:
            if write.action == "push" and may_have_happened(write):
                self._pushes.setdefault(write.value, []).append(write)
        self._all = [push for pushes in self._pushes.values() for push in pushes]
        self._deletes = [w for w in self.writes if w.action.startswith("delete") and may_have_happened(w)]

    def acknowledged(self) -> list[Request]:
        return [write for write in self.writes if is_acknowledged(write)]

    def precedes(self, one: Request, other: Request) -> bool:
        """Return whether a write was certainly shown where another request was made, before that began."""
        if one.end >= other.begin or one is other:
            return False
        if one.member == other.member:
            return True
        return one.site == other.site and other.is_ready and not self._is_parted(one.site, one.begin, other.end)

    def forbids(self, write: Request, read: Request) -> bool:
        """Return whether a read shows what an acknowledged write must have replaced, if the read must show the
        write."""
        if write.action == "delete-manifest" and write.value != read.value:
            return False  # it says only that this manifest is not shown
        if read.action.endswith("blob") and read.value:
            return False  # a blob may stay when its manifest is gone
        return not any(
            not self.precedes(source, write) for source in self._sources(read.value, write) if source.begin < read.end
        )

    def is_older(self, read: Request, before: Request) -> bool:
        """Return whether all that can have made a tag show what a read shows precedes all that can have made it show
        what another read had shown before. That a tag was never pushed precedes everything."""
        shown = [write for write in self._all_sources(before.value) if write.begin < before.end]
        if not before.value and not any(is_acknowledged(push) and self.precedes(push, before) for push in self._all):
            return False  # it may have shown that the tag was never pushed
        now = [write for write in self._all_sources(read.value) if write.begin < read.end]
        if not shown or (read.value and not now):
            return False  # no client pushed that: read-your-writes is broken, too
        return all(self.precedes(one, other) for one in now for other in shown)

    def _sources(self, value: str, after: Request) -> Sequence[Request]:
        """The writes that can make a tag show a value in the place of what `after` made it show."""
        if value:
            return self._all_sources(value)
        return [delete for delete in self._deletes if self._can_delete(delete, after)]

    def _all_sources(self, value: str) -> Sequence[Request]:
        if value == LISTED:
            return self._all
        return self._pushes.get(value, []) if value else self._deletes

    def _can_delete(self, delete: Request, after: Request) -> bool:
        """A manifest's delete takes a tag away only where the tag can have pointed at that manifest by then."""
        if delete.action == "delete-tag" or delete is after:
            return True
        return any(not self.precedes(push, after) for push in self._pushes.get(delete.value, []))


def is_acknowledged(write: Request) -> bool:
    return 200 <= write.status < 300


def may_have_happened(write: Request) -> bool:
    """A request that was refused for good changed nothing; one that failed or got no answer may have."""
    return not 400 <= write.status < 500

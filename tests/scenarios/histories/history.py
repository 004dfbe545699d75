"""The history of one run: what clients did and saw, and which faults were under way.

All times are of the harness's own monotonic clock, in seconds. The begin of an operation is taken before its first byte
is sent and the end after its last byte was received, so a harness that stands still makes an operation longer, and a
check weaker, but never wrong.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from simulations.write_order import WRITES

READS = ("read", "list", "manifest", "blob")
"""A list of tags is a read of each of them, which shows LISTED or nothing. A blob is read under the key of the manifest
that names it: while the manifest must be there, its blobs must."""
FINAL = ("final-read", "final-manifest", "final-blob")
"""Reads at every member after healing."""
SHARED = "shared/"
"""Repositories that all sites write. Between writes of several sites clocks decide, so only their end is checked."""

PARTITION_SETTLE_S = 6.0
"""The time after a partition inside a site in which its members may still answer as they did when alone: two
heartbeats of 2 s to hear each other, and one more for the difference to be fetched."""


@dataclass(slots=True)
class Operation:
    """One request of a client, and its answer."""

    action: str
    """One of WRITES, READS or FINAL, or upload."""
    site: str
    member: int
    key: str
    """REPOSITORY:TAG for tags, REPOSITORY@DIGEST for manifests."""
    begin: float
    end: float = math.inf
    """Infinite where no answer came: the request may be carried out at any time after its begin."""
    status: int = 0
    """Of the answer; 0 where none came."""
    value: str = ""
    """The digest that was written, deleted or shown; empty where nothing was shown."""
    is_ready: bool = True
    """True if a balancer had the member in its rotation when the operation began."""
    client: int = 0
    relies_since: float = 0.0
    """Of a push: when the first upload of a blob that it names began; 0 where it names blobs of an earlier push."""
    note: str = ""

    @property
    def is_acknowledged(self) -> bool:
        return 200 <= self.status < 300

    @property
    def repository(self) -> str:
        return self.key.partition("@")[0].partition(":")[0]

    @property
    def is_answered(self) -> bool:
        """True if a read showed a value, or the absence of one."""
        return self.status in (200, 404)


@dataclass(slots=True)
class Window:
    """A time in which a fault was under way, from before it was made until after it was undone."""

    kind: str
    begin: float
    end: float = math.inf
    sites: tuple[str, ...] = ()
    parts_site: str = ""
    """The site whose members this fault parts from each other."""
    what: str = ""


@dataclass
class History:
    """Everything that checkers look at."""

    operations: list[Operation] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    stalls: list[Window] = field(default_factory=list)
    """When the harness itself stood still: the machine was too busy."""
    ended: list[Window] = field(default_factory=list)
    """Instances that ended without anybody having ended them."""
    digests: dict[int, str] = field(default_factory=dict)
    """The state digest of each member after healing."""
    agreed_after_s: float | None = None
    """The time after healing at which all members were ready and had one state digest; None where they never did."""

    _parting: list[Window] = field(default_factory=list)
    _parting_of: int = 0
    """With how many windows that was made."""

    def by_key(self, reads: Iterable[str]) -> dict[str, list[Operation]]:
        """All writes, and reads of some kinds, of each tag and of each manifest."""
        found: dict[str, list[Operation]] = {}
        wanted = {*WRITES, *reads}
        for operation in self.operations:
            if operation.action in wanted:
                found.setdefault(operation.key, []).append(operation)
                if operation.action in ("push", "delete-manifest"):
                    found.setdefault(f"{operation.repository}@{operation.value}", []).append(operation)
        return found

    def is_parted(self, site: str, begin: float, end: float) -> bool:
        """Return whether members of a site were parted from each other at some time, or had been just before."""
        if self._parting_of != len(self.windows):  # checkers ask a million times
            self._parting_of, self._parting = len(self.windows), [w for w in self.windows if w.parts_site]
        return any(
            window.parts_site == site and window.begin <= end and begin <= window.end + PARTITION_SETTLE_S
            for window in self._parting
        )


@dataclass(frozen=True)
class Anomaly:
    """Something that must not be."""

    checker: str
    at: float
    text: str

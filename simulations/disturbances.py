"""Disturbances: which faults are active, and when each kind was last.

What a checker may demand depends on them. A run is *calm* when no fault has disturbed it for a while; then each request
must succeed. Requests *get through* when nothing but the bus has been disturbed for as long. A site is *parted* while a
fault may have separated its members; then it may serve stale reads.
"""

from collections import Counter
from collections.abc import Callable, Set

from simulations.checkers.read_your_writes import SETTLE_S
from simulations.faults import BUS_KINDS, PARTS_NO_SITE, SEAM_KINDS

CALM_S = 8.0


class Disturbances:
    """The disturbances of one run."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.fired_count: Counter[str] = Counter()
        """The number of strikes, by the kind of fault."""
        self._last_s = {"": 0.0}
        """When the run was last disturbed, by the kind of fault; "" stands for anything that is no fault."""
        self._active: Counter[str] = Counter()

    def begin(self, kind: str) -> None:
        """Note that a fault is about to strike, or has begun and lasts."""
        self._active[kind] += 1

    def end(self, kind: str) -> None:
        self._active[kind] -= 1
        self._active += Counter()
        self.note(kind)

    def fired(self, kind: str) -> None:
        """Count that a fault has struck."""
        self.fired_count[kind] += 1
        self.note(kind)

    def note(self, kind: str = "") -> None:
        """Note that the run is disturbed now."""
        self._last_s[kind] = self._now_s()

    @property
    def calm(self) -> bool:
        """True if nothing has disturbed the run for a while."""
        return self.is_calm_but_for(set())

    @property
    def requests_get_through(self) -> bool:
        """True if nothing has been disturbed for a while but the bus, and what workers have a living primary commit."""
        return self.is_calm_but_for(BUS_KINDS | SEAM_KINDS)

    def is_calm_but_for(self, kinds: Set[str]) -> bool:
        now = self._now_s()
        recent = any(now - at_s <= CALM_S for kind, at_s in self._last_s.items() if kind not in kinds)
        return not recent and not self._active.keys() - kinds

    def is_parted(self, site: str, begin: float, end: float) -> bool:
        """Return whether a fault may have separated members of a site between two times, or just before. One that ended
        before counts for a while, so that checkers do not demand too much."""
        if self._active.keys() - PARTS_NO_SITE:
            return True
        parted = (at_s for kind, at_s in self._last_s.items() if kind and kind not in PARTS_NO_SITE)
        return begin <= max(parted, default=-SETTLE_S) + SETTLE_S

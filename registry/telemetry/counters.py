"""Counters of a running registry: plain numbers, which a scrape reads (`http.admin.metrics`).

Only the event loop of their process touches them, so they need no locks and cost a request about a microsecond.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

COUNTED_AT_ONCE = 256
REQUEST_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0)


class Durations:
    """A histogram of durations, in buckets up to `bounds_s` and one beyond."""

    __slots__ = ("_bounds_s", "counts", "total_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        """By bucket, each alone."""
        self.total_s = 0.0

    def note(self, duration_s: float) -> None:
        self.counts[bisect_left(self._bounds_s, duration_s)] += 1
        self.total_s += duration_s

    def add(self, counts: Sequence[int], total_s: float) -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [one + more for one, more in zip(self.counts, counts, strict=True)]
        self.total_s += total_s

    def buckets(self) -> list[tuple[str, float]]:
        """Bounds as text, and how many took at most so long."""
        bounds = [*map(str, self._bounds_s), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


class Requests:
    """The requests of one route and method."""

    def __init__(self) -> None:
        self.durations = Durations(REQUEST_BOUNDS_S)
        self.statuses: Counter[int] = Counter()
        self.received_bytes = 0
        self.sent_bytes = 0


class Served(NamedTuple):
    """One request that is over."""

    route: str
    method: str
    status: int
    """0 when no answer had begun."""
    first_byte_s: float
    received_bytes: int
    sent_bytes: int


class Counted(NamedTuple):
    """The requests of one route and method that another process has served."""

    route: str
    method: str
    statuses: dict[int, int]
    durations: list[int]
    """By bucket."""
    total_s: float
    received_bytes: int
    sent_bytes: int


class Traffic:
    """All requests that were served, by route and method, of both of which there must be few.

    They are kept as they come and counted many at a time: that costs a third of counting each at its end.
    """

    def __init__(self) -> None:
        self._uncounted: list[Served] = []
        self._requests: dict[tuple[str, str], Requests] = {}
        self.under_way = 0
        self.cut_off = 0
        """Responses that broke off after they had begun."""

    def note(self, served: Served) -> None:
        self._uncounted.append(served)
        if len(self._uncounted) >= COUNTED_AT_ONCE:
            self._count()

    def requests(self) -> dict[tuple[str, str], Requests]:
        """By route and method."""
        self._count()
        return self._requests

    def total(self) -> int:
        return sum(requests.statuses.total() for requests in self.requests().values())

    def take(self) -> list[Counted]:
        """Return and reset the counts since the last call, for another process to add."""
        taken = [
            Counted(
                *labels, dict(of.statuses), of.durations.counts, of.durations.total_s, of.received_bytes, of.sent_bytes
            )
            for labels, of in self.requests().items()
        ]
        self._requests.clear()
        return taken

    def add(self, counted: Iterable[Counted]) -> None:
        """Count what another process has served."""
        for one in counted:
            requests = self._of(one.route, one.method)
            requests.statuses.update(one.statuses)
            requests.durations.add(one.durations, one.total_s)
            requests.received_bytes += one.received_bytes
            requests.sent_bytes += one.sent_bytes

    def _of(self, route: str, method: str) -> Requests:
        requests = self._requests.get((route, method))
        if requests is None:
            requests = self._requests[route, method] = Requests()
        return requests

    def _count(self) -> None:
        for route, method, status, first_byte_s, received_bytes, sent_bytes in self._uncounted:
            requests = self._of(route, method)
            requests.statuses[status] += 1
            requests.received_bytes += received_bytes
            requests.sent_bytes += sent_bytes
            if status:
                requests.durations.note(first_byte_s)
        self._uncounted.clear()


class PeerRequests:
    """Requests in the name of other instances: how many were answered, and how many were refused, by reason."""

    def __init__(self) -> None:
        self.answered = 0
        self.refused: Counter[str] = Counter()

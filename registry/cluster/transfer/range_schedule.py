"""The schedule of a range fetch: which MiBs are needed, and which holder sends which of them.

Each stream of a holder sends one run of adjacent MiBs at a time, those first that were requested first. A holder
without work takes over what another one is slow with; the first to bring it wins. Without I/O: `range_fetch` does the
rest.
"""

import asyncio
from collections import Counter

from registry.event_loop.now import now_s

RUN_MIBS = 4
"""MiBs of one request."""
SILENT_S = 1.0
"""Silence after which another holder fetches the same MiB."""
SLOW_S = 2.0
"""Time for one MiB after which another holder fetches the same MiB, unless that holder takes nearly as long itself."""
SLOWER = 4
"""A holder is slow that takes so many times as long for a MiB as another one."""

Stream = tuple[str, int]
"""An instance, and the number of one of the streams that are read from it."""


class Run:
    """A request for adjacent MiBs, under way at one holder."""

    def __init__(self, mibs: list[int]) -> None:
        self.missing = mibs
        """Those that have not come from it yet."""
        self.begun_at = self.heard_at = now_s()
        """The loop times at which the next of them began, and at which the holder last sent anything."""

    def note_heard(self) -> None:
        """Note that the holder has sent something."""
        self.heard_at = now_s()

    def is_slow(self, bound_s: float) -> bool:
        """Return whether the holder is silent, or has taken `bound_s` for the MiB that it sends."""
        now = now_s()
        return now - self.heard_at >= SILENT_S or now - self.begun_at >= bound_s


class RangeSchedule:
    """The MiBs of one content that readers need, and the runs under way, by stream."""

    def __init__(self) -> None:
        self._awaited: dict[int, asyncio.Future[bytes | None]] = {}
        """MiBs that are not here, in the order in which they were requested."""
        self._runs: dict[Stream, Run] = {}
        self._pace_s: dict[Stream, float] = {}
        """Seconds that a stream took for a MiB lately."""
        self._progressed_at = now_s()

    @property
    def is_empty(self) -> bool:
        """True if no MiB is needed."""
        return not self._awaited

    @property
    def idle_s(self) -> float:
        """Seconds without a MiB."""
        return now_s() - self._progressed_at

    def request(self, mib: int) -> "asyncio.Future[bytes | None]":
        """Return the future of a MiB; its result is None where there is none to be had."""
        future = self._awaited.get(mib)
        if future is None:
            if not self._awaited:
                self._progressed_at = now_s()
            future = self._awaited[mib] = asyncio.get_running_loop().create_future()
        return future

    def fail(self) -> None:
        """Give all MiBs up."""
        for future in self._awaited.values():
            if not future.done():
                future.set_result(None)
        self._awaited.clear()

    def holders_needed(self, most: int) -> int:
        """Return how many holders have work: one for each run, and one for each that is slow."""
        if not self._awaited:
            return 1
        at_once = -(-len(self._awaited) // RUN_MIBS)
        slow = sum(run.is_slow(SLOW_S) for run in self._runs.values())
        return min(at_once + slow, most)

    def next_run(self, stream: Stream, streams: int) -> Run | None:
        """Begin the next run of a stream, one of `streams`: at most a fair share of the MiBs that no other sends."""
        under_way = {mib for run in self._runs.values() for mib in run.missing}
        free = [mib for mib in self._awaited if mib not in under_way]
        return self._begin(stream, free[: min(RUN_MIBS, -(-len(free) // max(streams, 1)))])

    def second_run(self, stream: Stream) -> Run | None:
        """Begin a run of what another holder is too slow with, unless a third one is at it."""
        bound_s = max(SLOW_S, SLOWER * self._pace_s.get(stream, 0.0))
        senders = Counter(mib for run in self._runs.values() for mib in run.missing)
        for other, run in self._runs.items():
            lacking = [mib for mib in run.missing if mib in self._awaited and senders[mib] == 1]
            if lacking and other[0] != stream[0] and run.is_slow(bound_s):
                return self._begin(stream, lacking)
        return None

    def _begin(self, stream: Stream, mibs: list[int]) -> Run | None:
        """Begin a run of the first of these MiBs and of those that are adjacent to it."""
        adjacent = [mib for number, mib in enumerate(mibs) if mib == mibs[0] + number]
        if not adjacent:
            return None
        run = self._runs[stream] = Run(adjacent)
        return run

    def end(self, stream: Stream) -> None:
        """End the run of a stream. What it has not sent is free for others."""
        self._runs.pop(stream, None)

    def is_needed(self, run: Run) -> bool:
        """Return whether a reader still waits for a MiB of a run: another holder may have brought them."""
        return any(mib in self._awaited for mib in run.missing)

    def received(self, stream: Stream, run: Run, data: bytes) -> bool:
        """Take the first missing MiB of a run. Return whether a reader waited for it."""
        now, mib = now_s(), run.missing.pop(0)
        taken_s, run.begun_at, self._progressed_at = now - run.begun_at, now, now
        self._pace_s[stream] = (self._pace_s.get(stream, taken_s) + taken_s) / 2
        future = self._awaited.pop(mib, None)
        if future is not None and not future.done():
            future.set_result(data)
        return future is not None

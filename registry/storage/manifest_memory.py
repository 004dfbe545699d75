"""The memory budget of manifests: one bound on their bytes over all requests, while they arrive and are committed.

Layers are written to the disk as they arrive; a manifest is read into memory, up to 4 MiB of it. A request beyond the
budget waits for room, and is refused with 429 after BUDGET_TIMEOUT_S. Slow requests are served as long as there is
room. When there is none, one request is preempted: of those whose clients have been slow for MIN_RESERVATION_S, the one
that holds the most, so that a slow or silent client delays the others only for a moment. Where all requests wait for
room, the one that holds least is preempted, since otherwise they would wait for each other (a deadlock).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from registry.errors import SizeInvalid, TooManyManifests
from registry.event_loop.now import now_s
from registry.units import MIB

MAX_BYTES = 64 * MIB
RECEIVE_TIMEOUT_S = 60.0
"""The time in which a manifest must arrive."""
MIN_RESERVATION_S = 2.0
"""No request is preempted sooner."""
BUDGET_TIMEOUT_S = 10.0
"""Time that a request waits for memory before it is refused."""
BUDGET_POLL_S = 0.25
SEARCH_INTERVAL_S = 0.05
"""Time between two searches for a request to preempt: each looks at all of them."""


class ManifestMemoryBudget:
    """The budget of one instance, and the reservations in it."""

    def __init__(self) -> None:
        self._all: dict[MemoryReservation, None] = {}
        self._freed = asyncio.Event()
        self._looked_at = self._unstuck_at = -BUDGET_POLL_S
        self.held_bytes = 0

    @asynccontextmanager
    async def reserve(self) -> AsyncIterator["MemoryReservation"]:
        """Reserve memory for a manifest inside; its bytes count until the end."""
        one = MemoryReservation(self)
        self._all[one] = None
        try:
            yield one
        finally:
            del self._all[one]
            self.held_bytes -= one.held_bytes
            self._freed.set()

    async def wait_for_room(self, size: int, one: "MemoryReservation") -> None:
        """Return once there is room for so many more bytes. Raises TooManyManifests."""
        until = now_s() + BUDGET_TIMEOUT_S
        while self.held_bytes + size > MAX_BYTES:
            if now_s() > until:
                raise TooManyManifests(
                    "this instance is receiving as many manifests as it takes; push again", breaks_off=True
                )
            self._preempt_one(one)
            self._freed.clear()
            try:
                async with asyncio.timeout(BUDGET_POLL_S):
                    await self._freed.wait()
            except TimeoutError:
                pass

    def _preempt_one(self, asker: "MemoryReservation") -> None:
        if now_s() - self._looked_at < SEARCH_INTERVAL_S:
            return  # of many waiters, one is enough to check
        self._looked_at = now_s()
        if any(one.is_preempted for one in self._all):
            return  # one at a time: its bytes may be enough
        others = [one for one in self._all if one.is_preemptible and one is not asker]
        slow = [one for one in others if one.awaited_s() >= MIN_RESERVATION_S]
        stuck = [one for one in others if one.waiting_s() >= MIN_RESERVATION_S]
        if slow:
            max(slow, key=lambda one: one.held_bytes).preempt()
        elif (
            stuck and now_s() - self._unstuck_at >= BUDGET_POLL_S
        ):  # what that frees has to be used before the next one goes
            self._unstuck_at = now_s()
            min(stuck, key=lambda one: one.held_bytes).preempt()


class MemoryReservation:
    """The bytes of one manifest that arrives."""

    def __init__(self, receiving: ManifestMemoryBudget) -> None:
        self._receiving = receiving
        self._since = now_s()
        self._timeout: asyncio.Timeout | None = None
        self.held_bytes = 0
        self.is_preempted = False
        self._waited_s = 0.0
        self._waits_since: float | None = None
        """The time since which it waits for room, in which its client does not count as slow."""

    async def take(self, size: int) -> None:
        """Count bytes that have arrived, and wait for room for them. Raises TooManyManifests."""
        self._waits_since = now_s()
        await self._receiving.wait_for_room(size, self)
        self._waited_s += self.waiting_s()
        self._waits_since = None
        self.held_bytes += size
        self._receiving.held_bytes += size

    async def whole(self, body: Awaitable[bytes]) -> bytes:
        """Return the body. Raises SizeInvalid where it is late, and TooManyManifests where it was preempted."""
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S) as self._timeout:
                return await body
        except TimeoutError:
            if self.is_preempted:
                raise TooManyManifests(
                    "this manifest came slowly, and others waited for its place", breaks_off=True
                ) from None
            raise SizeInvalid("the manifest did not come in time", breaks_off=True) from None
        finally:
            self._timeout = None

    @property
    def is_preemptible(self) -> bool:
        """Return whether the manifest is still arriving, and its end would free memory."""
        return self._timeout is not None and self.held_bytes > 0

    def waiting_s(self) -> float:
        """Return how long it has been waiting for room now."""
        return now_s() - self._waits_since if self._waits_since is not None else 0.0

    def awaited_s(self) -> float:
        """Return how long its client has been waited for, in all."""
        return now_s() - self._since - self._waited_s - self.waiting_s()

    def preempt(self) -> None:
        assert self._timeout is not None, "only a manifest that is still arriving is preempted"
        self.is_preempted = True
        self._timeout.reschedule(now_s())

"""How many bytes of manifests may be in memory at once, over all requests, while they arrive and are committed.

Layers go to the disk as they come; a manifest is read into memory, up to 4 MiB of it. So there is a bound for all of
them together. A byte beyond it waits for room, for a while, and is then refused with 429. Whoever takes his time is
served as long as there is room. When there is none, he gives way: of those whose senders have been waited for for more
than a moment, the one who holds most; so whoever sends slowly, or stops, keeps nobody waiting for long. Where all wait
for room for the rest of theirs, the one who holds least gives way, or they would wait for each other.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from registry.errors import CLOSE, SizeInvalid, TooManyManifests

MAX_BYTES = 64 * 1024 * 1024
WHOLE_S = 60.0
"""A manifest that has not come in this time is not waited for."""
FAIR_S = 2.0
"""So long nobody is asked to give way."""
WAIT_S = 10.0
LOOK_S = 0.25
PAUSE_S = 0.05


class ManifestMemoryBudget:
    """The manifests that one instance is receiving."""

    def __init__(self) -> None:
        self._all: dict[MemoryReservation, None] = {}
        self._freed = asyncio.Event()
        self._looked_at = self._unstuck_at = -LOOK_S
        self.held_bytes = 0

    @asynccontextmanager
    async def reserve(self) -> AsyncIterator["MemoryReservation"]:
        """A manifest: its bytes count until the end of this."""
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
        until = _now() + WAIT_S
        while self.held_bytes + size > MAX_BYTES:
            if _now() > until:
                raise TooManyManifests("this instance is receiving as many manifests as it takes; push again", CLOSE)
            self._preempt_one(one)
            self._freed.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._freed.wait()
            except TimeoutError:
                pass

    def _preempt_one(self, asker: "MemoryReservation") -> None:
        if _now() - self._looked_at < PAUSE_S:
            return  # many wait, and one of them looking is enough
        self._looked_at = _now()
        if any(one.is_preempted for one in self._all):
            return  # one at a time: its bytes may be enough
        others = [one for one in self._all if one.is_preemptible and one is not asker]
        slow = [one for one in others if one.awaited_s() >= FAIR_S]
        stuck = [one for one in others if one.waiting_s() >= FAIR_S]
        if slow:
            max(slow, key=lambda one: one.held_bytes).preempt()
        elif stuck and _now() - self._unstuck_at >= LOOK_S:  # what that frees has to be used before the next one goes
            self._unstuck_at = _now()
            min(stuck, key=lambda one: one.held_bytes).preempt()


class MemoryReservation:
    """One manifest on its way into memory."""

    def __init__(self, receiving: ManifestMemoryBudget) -> None:
        self._receiving = receiving
        self._since = _now()
        self._timeout: asyncio.Timeout | None = None
        self.held_bytes = 0
        self.is_preempted = False
        self._waited_s = 0.0
        self._waits_since: float | None = None
        """For room: then it is not its sender who is slow."""

    async def take(self, size: int) -> None:
        """So many bytes have come. Waits for room for them. Raises TooManyManifests."""
        self._waits_since = _now()
        await self._receiving.wait_for_room(size, self)
        self._waited_s += self.waiting_s()
        self._waits_since = None
        self.held_bytes += size
        self._receiving.held_bytes += size

    async def whole(self, body: Awaitable[bytes]) -> bytes:
        """The body, if it comes in time. Raises SizeInvalid, and TooManyManifests for one that gave way."""
        try:
            async with asyncio.timeout(WHOLE_S) as self._timeout:
                return await body
        except TimeoutError:
            if self.is_preempted:
                raise TooManyManifests("this manifest came slowly, and others waited for its place", CLOSE) from None
            raise SizeInvalid("the manifest did not come in time", headers=CLOSE) from None
        finally:
            self._timeout = None

    @property
    def is_preemptible(self) -> bool:
        """Whether it is still on its way, and would free anything."""
        return self._timeout is not None and self.held_bytes > 0

    def waiting_s(self) -> float:
        """How long it has been waiting for room now."""
        return _now() - self._waits_since if self._waits_since is not None else 0.0

    def awaited_s(self) -> float:
        """How long its sender has been waited for, over all."""
        return _now() - self._since - self._waited_s - self.waiting_s()

    def preempt(self) -> None:
        assert self._timeout is not None, "only what is still on its way gives way"
        self.is_preempted = True
        self._timeout.reschedule(_now())


def _now() -> float:
    return asyncio.get_running_loop().time()

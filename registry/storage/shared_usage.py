"""The use of the disk by all processes of an instance: numbers in memory that they share.

Each process writes the cells of its own slot, and the primary the bytes of content, so no lock is needed. A number is
eight bytes that are stored in one step. A reader may see one cell older than another: the bounds that depend on them
(`disk_budget`, `upload_places`) are kept up to what is under way at that moment.
"""

import math
import mmap

from registry.storage.upload_homes import ALONE, ProcessSlot

_COUNT, _HELD, _AT_WORK, _USED_MS, _REQUESTS, _PREEMPTED, _STARTS = range(7)
_CELLS_A_SLOT = 7
_OF_A_PROCESS = (_COUNT, _HELD, _AT_WORK, _USED_MS, _REQUESTS)
"""The cells that end with a process. The others are counted over all processes that have had a slot."""
_CONTENT = 0
_FIRST_SLOT = 1


class SharedUsage:
    """The cells of all processes. Made before the processes are forked."""

    def __init__(self, processes: int = 1) -> None:
        self._slots = range(processes)
        self._cells = memoryview(mmap.mmap(-1, 8 * (_FIRST_SLOT + processes * _CELLS_A_SLOT))).cast("d")

    def of(self, slot: ProcessSlot) -> "OwnUsage":
        """Return the part that a process writes."""
        return OwnUsage(self, slot)

    def clear(self, slot: int) -> None:
        """Forget the numbers of a process that has died."""
        for cell in _OF_A_PROCESS:
            self.set(slot, cell, 0)

    def set(self, slot: int, cell: int, value: float) -> None:
        self._cells[_FIRST_SLOT + slot * _CELLS_A_SLOT + cell] = value

    def get(self, slot: int, cell: int) -> float:
        return self._cells[_FIRST_SLOT + slot * _CELLS_A_SLOT + cell]

    def _sum(self, cell: int) -> int:
        return int(sum(self.get(slot, cell) for slot in self._slots))

    @property
    def content_bytes(self) -> int:
        """Bytes of content on the disk, as the primary has counted them."""
        return int(self._cells[_CONTENT])

    @content_bytes.setter
    def content_bytes(self, size_bytes: int) -> None:
        self._cells[_CONTENT] = size_bytes

    @property
    def uploads(self) -> int:
        """The number of uploads under way."""
        return self._sum(_COUNT)

    @property
    def upload_bytes(self) -> int:
        """Bytes of all uploads under way."""
        return self._sum(_HELD)

    @property
    def preempted(self) -> int:
        """Uploads that have given way since the processes began."""
        return self._sum(_PREEMPTED)

    @property
    def requests(self) -> int:
        """The number of requests under way at workers, as they last published it."""
        return self._sum(_REQUESTS)

    def uploads_at_work(self, since_ms: int) -> bool:
        """Return whether a request of an upload is under way, or has ended after `since_ms`, in wall milliseconds."""
        return any(self.get(slot, _AT_WORK) > 0 or self.get(slot, _USED_MS) > since_ms for slot in self._slots)


class OwnUsage:
    """The cells of one process, which it alone writes."""

    def __init__(self, shared: SharedUsage, slot: ProcessSlot = ALONE) -> None:
        self.shared = shared
        self.slot = slot

    def begin(self) -> int:
        """Count the start of a process, and return its number: higher than that of any earlier one in its slot."""
        number = int(self.shared.get(self.slot.number, _STARTS)) + 1
        self.shared.set(self.slot.number, _STARTS, number)
        return number

    def set_uploads(self, count: int, held_bytes: int) -> None:
        """Publish the number and the bytes of this process' uploads."""
        self.shared.set(self.slot.number, _COUNT, count)
        self.shared.set(self.slot.number, _HELD, held_bytes)

    def set_activity(self, at_work: int, used_ms: int) -> None:
        """Publish how many requests are at work on uploads, and when the last upload that waits for more was used."""
        self.shared.set(self.slot.number, _AT_WORK, at_work)
        self.shared.set(self.slot.number, _USED_MS, used_ms)

    def set_requests(self, under_way: int) -> None:
        """Publish how many requests this process, a worker, serves."""
        self.shared.set(self.slot.number, _REQUESTS, under_way)

    def count_preempted(self) -> None:
        """Count an upload that has given way."""
        number = self.slot.number
        self.shared.set(number, _PREEMPTED, self.shared.get(number, _PREEMPTED) + 1)

    def room_for(self, most: int) -> int:
        """Return how many uploads this process may have where all may have `most`: what the others leave, and its share
        in any case, since it cannot end theirs."""
        others = self.shared.uploads - int(self.shared.get(self.slot.number, _COUNT))
        return max(most - others, math.ceil(most / self.slot.count))

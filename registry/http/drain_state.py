"""The state of a drain: set by the drain (`runtime.drain`) in the primary, read by all processes of the instance."""

import mmap

_DRAINING, _REFUSES_UPLOADS, _FINISHES_UNTIL = range(3)
_CELLS = 3


class DrainState:
    """The state of one instance, in memory that its processes share. Made before they are forked."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * _CELLS)).cast("d")  # eight bytes are stored in one step

    @property
    def draining(self) -> bool:
        """True once the instance is to end: it is not ready any more."""
        return self._cells[_DRAINING] > 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self._cells[_DRAINING] = value

    @property
    def begins_uploads(self) -> bool:
        """True if a new upload may begin here: not once a balancer has had time to learn that this instance drains."""
        return not self._cells[_REFUSES_UPLOADS]

    @begins_uploads.setter
    def begins_uploads(self, value: bool) -> None:
        self._cells[_REFUSES_UPLOADS] = not value

    @property
    def finishes_until_s(self) -> float | None:
        """The time until which requests may go on, in steady seconds; None while all may."""
        return self._cells[_FINISHES_UNTIL] or None

    @finishes_until_s.setter
    def finishes_until_s(self, until_s: float) -> None:
        self._cells[_FINISHES_UNTIL] = until_s

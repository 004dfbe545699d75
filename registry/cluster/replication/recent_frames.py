"""The frames of the last changes that this instance has published, for members that the bus does not reach."""

from collections import deque

from registry.units import MIB

MAX_FRAMES = 1024
MAX_BYTES = 8 * MIB


class RecentFrames:
    """The last frames of the present incarnation, by sequence number, within a bound of bytes."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, bytes]] = deque()
        self._held_bytes = 0

    def add(self, sequence: int, frame: bytes) -> None:
        """Keep the frame of the next change, and drop the oldest ones beyond the bounds."""
        self._frames.append((sequence, frame))
        self._held_bytes += len(frame)
        while len(self._frames) > MAX_FRAMES or self._held_bytes > MAX_BYTES:
            self._held_bytes -= len(self._frames.popleft()[1])

    def get(self, sequence: int) -> bytes:
        """Return the frame of a change; empty where it is too long ago."""
        first = self._frames[0][0] if self._frames else sequence + 1
        return self._frames[sequence - first][1] if 0 <= sequence - first < len(self._frames) else b""

    def clear(self) -> None:
        """Drop all frames: another incarnation begins."""
        self._frames.clear()
        self._held_bytes = 0

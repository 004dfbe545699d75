"""The home of an upload: the process of an instance that receives its bytes.

Several processes may serve one data directory. Each receives, hashes, writes and syncs the bodies of the uploads that
were begun at it; their hash states and open files are in its memory. An upload's name says which process that is, so
that any process can pass a request on (`runtime.relay`). The name holds a number at random, and the remainder of that
number by the count of processes is the home. So a name of an instance that had another count, or of an earlier version,
has a home too. It goes on from the upload's durable bytes, as after a restart.

Invariant: at any time one process alone is the home of an upload, and no other process touches its file before it is
published.
"""

from base64 import urlsafe_b64decode
from dataclasses import dataclass

_NUMBER_BYTES = 2
_OWNER_BYTES = 16


PRIMARY_SLOT = 0
"""The number of the primary's slot."""


@dataclass(frozen=True, slots=True)
class ProcessSlot:
    """The place of one process among those of its instance. A process that takes a dead one's place has its slot."""

    number: int
    count: int

    def is_home(self, upload: str) -> bool:
        """Return whether this process is the home of an upload."""
        return self.home_of(upload) == self.number

    def home_of(self, upload: str) -> int:
        """Return the number of the slot that is the home of an upload, by its name."""
        if self.count == 1:
            return self.number
        random = urlsafe_b64decode(upload)[_OWNER_BYTES : _OWNER_BYTES + _NUMBER_BYTES]
        return int.from_bytes(random) % self.count

    def at_home(self, random: bytes) -> bytes:
        """Return `random`, the random part of a new upload's name, changed so that this process is its home."""
        drawn = int.from_bytes(random[:_NUMBER_BYTES])
        number = drawn - drawn % self.count + self.number
        if number >= 1 << 8 * _NUMBER_BYTES:
            number -= self.count
        return number.to_bytes(_NUMBER_BYTES) + random[_NUMBER_BYTES:]


ALONE = ProcessSlot(PRIMARY_SLOT, 1)
"""The slot of a process that serves alone."""

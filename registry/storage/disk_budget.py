"""The disk budget: the bytes of content and of uploads under way, and the number that they may reach.

An upload is refused while there is more than the budget allows. Content of other instances is fetched beyond the budget
as long as eviction can make room for it (`cluster.placement.eviction`). A budget of 0 bytes means that there is none.
All processes of an instance share the counts (`shared_usage`).
"""

from registry.errors import DiskBudgetUsed
from registry.storage.shared_usage import SharedUsage


class DiskBudget:
    """The budget of one instance. Uploads and transfers add what they have stored; eviction counts it anew."""

    def __init__(self, limit_bytes: int, usage: SharedUsage) -> None:
        self.limit_bytes = limit_bytes
        self._usage = usage
        self.is_exhausted = False
        """True after an eviction that found too little to evict."""

    @property
    def content_bytes(self) -> int:
        """Bytes of content on this disk, as of the last count and what was added since."""
        return self._usage.content_bytes

    @content_bytes.setter
    def content_bytes(self, size_bytes: int) -> None:
        self._usage.content_bytes = size_bytes

    @property
    def taken_bytes(self) -> int:
        return self._usage.content_bytes + self._usage.upload_bytes

    def on_blob_added(self, size_bytes: int) -> None:
        """Count content that was added."""
        self._usage.content_bytes += size_bytes

    def check_room(self) -> None:
        """Raise DiskBudgetUsed while there is more than the budget allows."""
        if self.limit_bytes and self.taken_bytes > self.limit_bytes:
            raise DiskBudgetUsed({"taken_bytes": self.taken_bytes, "budget_bytes": self.limit_bytes})

    def has_room(self, size_bytes: int) -> bool:
        """Return whether content that others hold may be fetched. Room is made for it later, unless the last eviction
        found too little."""
        if not self.limit_bytes:
            return True
        is_beyond = self.taken_bytes + size_bytes > self.limit_bytes
        return size_bytes <= self.limit_bytes and not (self.is_exhausted and is_beyond)

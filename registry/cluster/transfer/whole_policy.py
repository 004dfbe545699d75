"""When the whole of a content follows the ranges that were read of it, in the background.

It does if the policy assigns the content to this instance. It also does if ranges of it have moved 1.5 times the bytes
of the whole: more ranges will likely follow, and the whole costs less than what has moved already (the ski rental
problem). One client that pulls a whole content by ranges moves each byte once.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from registry.oci.names import Digest

FetchWhole = Literal["assigned", "reused", "always"]
"""See the setting `fetch_whole`."""

REUSED = 1.5
MAX_REMEMBERED = 10_000


class WholePolicy:
    """The decision of one process, with the bytes that ranges have moved."""

    def __init__(self, fetch_whole: FetchWhole, is_assigned: Callable[[Digest], bool]) -> None:
        """`is_assigned` tells whether the policy assigns a content to this instance."""
        self._fetch_whole = fetch_whole
        self._is_assigned = is_assigned
        self._moved: OrderedDict[Digest, int] = OrderedDict()

    def note_moved(self, digest: Digest, size_bytes: int) -> None:
        """Note that a range has moved so many bytes of a content."""
        self._moved[digest] = self._moved.pop(digest, 0) + size_bytes
        if len(self._moved) > MAX_REMEMBERED:
            self._moved.popitem(last=False)

    def is_due(self, digest: Digest, size: int) -> bool:
        """Return whether to fetch the whole of a content of `size` bytes."""
        if self._fetch_whole == "always" or self._is_assigned(digest):
            return True
        return self._fetch_whole == "reused" and self._moved.get(digest, 0) >= REUSED * size

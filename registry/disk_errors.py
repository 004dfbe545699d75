"""Disk errors: a full disk is distinguished from a failing one, and logged once a minute.

On a full disk, every write fails, many times a second: pushes, changes of other instances, copies, upkeep. One line a
minute is logged; the pushes that fail are counted.
"""

import errno
import logging

import apsw

from registry.errors import DiskFull, StorageFailed

LOG_INTERVAL_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    """Return whether an error of the disk or of SQLite says that there is no room."""
    return isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in _FULL)


def storage_failure(message: str, error: Exception) -> StorageFailed:
    """Return the error that a client receives for an error of the disk or of SQLite: `message`, unless the disk is
    full."""
    if is_full(error):
        return DiskFull()
    cause = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return StorageFailed(message, {"cause": cause})


class FullDiskFilter(logging.Filter):
    """Lets one line in a minute through that has a full disk among its fields."""

    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, "fields", {})
        if not any(isinstance(value, DiskFull) for value in fields.values()):
            return True
        if record.created < self._next_at <= record.created + LOG_INTERVAL_S:
            return False
        self._next_at = record.created + LOG_INTERVAL_S
        return True

"""A note in a data directory of the last backup that was made of it.

`concord backup` is a process of its own. The instance shows the note, so that an operator sees, and an alert reports,
that backups have stopped.
"""

import msgspec

from registry.errors import StorageFailed
from registry.ports import Disk
from registry.storage.jobs import in_executor

FILE = "last_backup.json"
MAX_BYTES = 8192


class BackupNote(msgspec.Struct):
    """The end time, the size and the target of a backup."""

    ended_ms: int
    contents: int
    bytes: int
    missing: int
    """Contents that were corrupt or missing, and are not in the backup."""
    target: str


async def read_note(disk: Disk) -> BackupNote | None:
    """Return the note; None where there is none, or what is there is none."""

    def read() -> bytes:
        file = disk.open(FILE)
        try:
            return file.pread(0, MAX_BYTES)
        finally:
            file.close()

    try:
        return msgspec.json.decode(await in_executor(read), type=BackupNote)
    except (StorageFailed, msgspec.DecodeError):
        return None

"""Free and total space of the data directory's file system, cached: a look may wait for a device, and heartbeats and
answers must not."""

from registry.ports import Disk
from registry.storage.jobs import in_executor


class DiskSpace:
    """Free and total bytes; zeros before the first look."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.free_bytes = self.total_bytes = 0

    async def look(self) -> None:
        """Update the figures. They stay as they are where the disk does not answer: its failures are noticed
        elsewhere."""
        try:
            self.free_bytes, self.total_bytes = await in_executor(lambda: (self._disk.free(), self._disk.total()))
        except OSError:
            return

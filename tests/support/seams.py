"""Seams for tests within one process: the real disk, watched or made to fail, and a clock that stands still."""

import errno
import itertools
from pathlib import Path

from registry.adapters.disk import SystemDisk, SystemFile
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import ChangeSink, Unpublished


class StillClock:
    """A clock that is set by hand, and entropy that never repeats."""

    _drawn = itertools.count(1)

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def steady_s(self) -> float:
        return self.at_ms / 1000

    def entropy(self, size: int) -> bytes:
        # Writers are the upper bits, so the counter goes there.
        return (next(self._drawn) << 40).to_bytes(8, "big")[:size].ljust(size, b"\x01")


class WatchedFile(SystemFile):
    def __init__(self, descriptor: int, path: str, disk: "WatchedDisk") -> None:
        super().__init__(descriptor)
        self._path, self._disk = path, disk

    def append(self, parts):
        self._disk.note("append", self._path)
        super().append(parts)

    def truncate(self, size):
        self._disk.note("truncate", self._path)
        super().truncate(size)

    def sync(self):
        self._disk.note("sync", self._path)
        super().sync()


class WatchedDisk(SystemDisk):
    """Notes what changes the disk, and fails such a call when it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        root.mkdir(parents=True, exist_ok=True)
        self.calls: list[tuple[str, str]] = []
        self.failing: dict[str, int] = {}
        """Errors to raise, by the name of the call."""

    def note(self, call: str, path: str) -> None:
        if call in self.failing:
            raise OSError(self.failing[call], errno.errorcode[self.failing[call]], path)
        self.calls.append((call, path))

    def create(self, path):
        self.note("create", path)
        return self._watched(super().create(path), path)

    def open(self, path, append=False):
        return self._watched(super().open(path, append), path)

    def _watched(self, file: SystemFile, path: str) -> WatchedFile:
        return WatchedFile(file._descriptor, path, self)

    def rename(self, source, target):
        self.note("rename", target)
        super().rename(source, target)

    def remove(self, path):
        self.note("remove", path)
        super().remove(path)

    def sync_directory(self, path):
        self.note("sync_directory", path)
        super().sync_directory(path)


async def opened_catalog(root: Path, clock: StillClock | None = None, sink: ChangeSink | None = None) -> Catalog:
    """A catalog on a real disk, that publishes nothing unless it is given a sink."""
    disk = SystemDisk(root)
    disk.make_directory(".")
    catalog = Catalog(disk, clock or StillClock())
    await catalog.start(awaits_access=False)
    catalog.database.attach(sink or Unpublished())
    return catalog

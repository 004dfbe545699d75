"""A real directory behind `registry.ports.Disk`."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import apsw

_MAX_PARTS = 512


class SystemFile:
    """See `registry.ports.DiskFile`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        for at in range(0, len(parts), _MAX_PARTS):
            self._write(parts[at : at + _MAX_PARTS])

    def _write(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        size = sum(map(len, parts))
        written = os.writev(self._descriptor, parts)
        if written < size:
            rest = memoryview(b"".join(parts))
            while written < size:
                written += os.write(self._descriptor, rest[written:])

    def pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def pread_nowait(self, offset: int, size: int) -> bytes | bytearray | None:
        buffer = bytearray(size)
        try:
            read = os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return None
            raise
        # A short read may be the end of the file or the end of what is cached; pread tells them apart.
        return buffer if read == size else None

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


class SystemDisk:
    """See `registry.ports.Disk`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make_directory(self, path: str) -> None:
        (self.root / path).mkdir(parents=True, exist_ok=True)

    def create(self, path: str) -> SystemFile:
        mode = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        return SystemFile(os.open(self.root / path, mode | os.O_CLOEXEC, 0o644))

    def open(self, path: str, append: bool = False) -> SystemFile:
        mode = os.O_RDWR | os.O_APPEND if append else os.O_RDONLY
        return SystemFile(os.open(self.root / path, mode | os.O_CLOEXEC))

    def rename(self, source: str, target: str) -> None:
        os.rename(self.root / source, self.root / target)

    def remove(self, path: str) -> None:
        os.remove(self.root / path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(self.root / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(self.root / path))

    def free(self) -> int:
        stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize

    def total(self) -> int:
        stat = os.statvfs(self.root)
        return stat.f_blocks * stat.f_frsize

    def connect(self, path: str) -> apsw.Connection:
        return apsw.Connection(str(self.root / path), statementcachesize=256)

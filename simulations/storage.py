"""A disk that loses what was not synced, under the content files and under SQLite.

Content files live in memory. SQLite's are real files on a memory file system, because its write-ahead log needs shared
memory, behind a VFS that sees every write, sync, truncate and delete. Of both the disk knows what is durable and what
is pending; after a crash any subset of the pending sectors and names may be there. Calls can fail (EIO, ENOSPC,
EDQUOT), and the whole instance can die at the n-th of them.
"""

import errno
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw

from simulations.process import PROCESS, Process

SECTOR_BYTES = 512
ROOM_BYTES = 1 << 40

DiskImage = tuple[dict[str, bytes], dict[str, bytes]]
"""The content files and the databases of a disk, by their names."""


class FileState:
    """The bytes of one file: what is there, and what would be after a power cut."""

    def __init__(self, content: bytes = b"") -> None:
        self.now = bytearray(content)
        self._durable = bytearray(content)
        self._pending: list[tuple[int, bytes | None]] = []
        """Offsets and what was written there; a truncation has None in its place."""

    def write(self, offset: int, data: bytes) -> None:
        if offset > len(self.now):
            self.now.extend(bytes(offset - len(self.now)))
        self.now[offset : offset + len(data)] = data
        self._pending.append((offset, data))

    def truncate(self, size: int) -> None:
        del self.now[size:]
        self.now.extend(bytes(size - len(self.now)))
        self._pending.append((size, None))

    def sync(self) -> None:
        for offset, data in self._pending:
            _apply(self._durable, offset, data)
        self._pending.clear()

    def after_power_cut(self, rng: random.Random) -> bytes:
        """Return what a power cut leaves: the durable bytes and any subset of the pending sectors."""
        left = bytearray(self._durable)
        keep = rng.choice((0.0, 0.5, 0.9, 1.0))
        for offset, data in self._pending:
            if data is None:
                if rng.random() < keep:
                    _apply(left, offset, None)
                continue
            for at in range(0, len(data), SECTOR_BYTES):
                if rng.random() < keep:
                    _apply(left, offset + at, data[at : at + SECTOR_BYTES])
        return bytes(left)

    def flip_bit(self, bit: int) -> None:
        for content in (self.now, self._durable):
            if bit // 8 < len(content):
                content[bit // 8] ^= 1 << bit % 8


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(max(offset - len(content), 0)))
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class DirectoryState:
    """The directories of a disk: which name stands for which bytes, now and after a power cut."""

    def __init__(self) -> None:
        self.now: dict[str, FileState] = {}
        self._durable: dict[str, FileState] = {}
        self._pending: list[tuple[str | None, str | None, FileState]] = []
        """Pending changes: (old name, new name, bytes); either name may be None."""
        self.directories: dict[str, set[str]] = defaultdict(set)
        """The names of directories, by the directory that they are in."""

    def change(self, old: str | None, new: str | None, platter: FileState) -> None:
        if old is not None:
            del self.now[old]
        if new is not None:
            self.now[new] = platter
        self._pending.append((old, new, platter))

    def sync(self, directory: str) -> None:
        still = []
        for old, new, platter in self._pending:
            if directory in (_parent(old), _parent(new)):
                _rename(self._durable, old, new, platter)
            else:
                still.append((old, new, platter))
        self._pending = still

    def after_power_cut(self, rng: random.Random) -> dict[str, bytes]:
        left = dict(self._durable)
        keep = rng.choice((0.0, 0.5, 1.0))
        for old, new, platter in self._pending:
            if rng.random() < keep:
                _rename(left, old, new, platter)
        return {name: platter.after_power_cut(rng) for name, platter in left.items()}


def _parent(name: str | None) -> str | None:
    return None if name is None else name.rpartition("/")[0] or "."


def _rename(names: dict[str, FileState], old: str | None, new: str | None, platter: FileState) -> None:
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = platter


class SimulatedFile:
    """See `registry.ports.DiskFile`."""

    def __init__(self, disk: "SimulatedDisk", name: str, platter: FileState, may_write: bool) -> None:
        self._disk, self._name, self._platter, self._may_write = disk, name, platter, may_write

    def append(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self._disk.call("append", self._name)
        if not self._may_write:
            raise OSError(errno.EBADF, "opened for reading")
        self._platter.write(len(self._platter.now), b"".join(parts))

    def pread(self, offset: int, size: int) -> bytes:
        self._disk.call("pread", self._name)
        return bytes(self._platter.now[offset : offset + size])

    def pread_nowait(self, offset: int, size: int) -> bytes | None:
        read = self.pread(offset, size)
        return read if len(read) == size and self._disk.is_cached() else None

    def truncate(self, size: int) -> None:
        self._disk.call("truncate", self._name)
        self._platter.truncate(size)

    def sync(self) -> None:
        self._disk.call("sync", self._name)
        self._platter.sync()

    def size(self) -> int:
        return len(self._platter.now)

    def close(self) -> None:
        pass


class SimulatedDisk:
    """See `registry.ports.Disk`. One for each start of an instance: `restarted` makes the next one.

    `call` is told of every call before it happens, and may raise.
    """

    def __init__(self, scratch: Path, rng: random.Random, content: dict[str, bytes], databases: dict[str, bytes]):
        self._scratch = scratch
        self._rng = rng
        self._names = DirectoryState()
        self._databases: dict[str, FileState] = {}
        self._connections: list[tuple[Process | None, apsw.Connection]] = []
        self.on_call: Callable[[str, str], None] = lambda call, name: None
        self.is_cached: Callable[[], bool] = lambda: True
        scratch.mkdir(parents=True)
        self._vfs = _WatchingVfs(f"simulated-{scratch.name}-{id(self)}", self)
        for name, data in content.items():
            self._names.now[name] = self._names._durable[name] = FileState(data)
        for name, data in databases.items():
            (scratch / name).write_bytes(data)

    def call(self, call: str, name: str) -> None:
        self.on_call(call, name)

    # What the registry uses

    def make_directory(self, path: str) -> None:
        while "/" in path:
            path, _, name = path.rpartition("/")
            self._names.directories[path].add(name)

    def create(self, path: str) -> SimulatedFile:
        self.call("create", path)
        if path in self._names.now:
            raise FileExistsError(errno.EEXIST, "exists", path)
        platter = FileState()
        self._names.change(None, path, platter)
        return SimulatedFile(self, path, platter, True)

    def open(self, path: str, append: bool = False) -> SimulatedFile:
        self.call("open", path)
        return SimulatedFile(self, path, self._existing(path), append)

    def rename(self, source: str, target: str) -> None:
        self.call("rename", target)
        self._names.change(source, target, self._existing(source))

    def remove(self, path: str) -> None:
        self.call("remove", path)
        self._names.change(path, None, self._existing(path))

    def sync_directory(self, path: str) -> None:
        self.call("sync_directory", path)
        self._names.sync(path)

    def names(self, path: str) -> list[str]:
        inside = f"{path}/"
        files = {name[len(inside) :] for name in self._names.now if name.startswith(inside)}
        return sorted({name for name in files if "/" not in name} | self._names.directories[path])

    def free(self) -> int:
        return ROOM_BYTES

    def total(self) -> int:
        return ROOM_BYTES

    def connect(self, path: str) -> apsw.Connection:
        connection = apsw.Connection(str(self._scratch / path), vfs=self._vfs.name, statementcachesize=256)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connections.append((PROCESS.get(), connection))
        return connection

    def _existing(self, path: str) -> FileState:
        platter = self._names.now.get(path)
        if platter is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return platter

    # What faults and checkers use

    def database(self, name: str) -> FileState:
        """The bytes of one of SQLite's files, by the part of its name behind the directory."""
        platter = self._databases.get(name)
        if platter is None:
            path = self._scratch / name
            platter = self._databases[name] = FileState(path.read_bytes() if path.exists() else b"")
        return platter

    def content_names(self) -> list[str]:
        return sorted(name for name in self._names.now if name.startswith("blobs/"))

    def content(self, name: str) -> bytes:
        return bytes(self._names.now[name].now)

    def content_size(self, name: str) -> int:
        return len(self._names.now[name].now)

    def flip_bit(self, name: str, bit: int) -> None:
        self._names.now[name].flip_bit(bit)

    def image(self, power_cut: bool) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Return what is left for the next start: after a power cut any subset of what was not synced, else all of
        it."""
        databases = {name: p for name, p in self._databases.items() if not name.endswith("-shm")}
        if power_cut:
            content = self._names.after_power_cut(self._rng)
            return content, {name: platter.after_power_cut(self._rng) for name, platter in sorted(databases.items())}
        content = {name: bytes(platter.now) for name, platter in sorted(self._names.now.items())}
        return content, {name: bytes(platter.now) for name, platter in sorted(databases.items())}

    def release(self) -> None:
        """Close what a killed instance left open: the collector cannot see through SQLite's objects."""
        self.on_call = lambda call, name: None
        for _, connection in self._connections:
            connection.close(force=True)
        self._connections.clear()

    def release_process(self, process: Process) -> None:
        """Close what one killed process left open, as the kernel does: its locks are released."""
        for owner, connection in self._connections:
            if owner is process:
                connection.close(force=True)
        self._connections = [(owner, connection) for owner, connection in self._connections if owner is not process]

    def discard(self) -> None:
        """Forget the real files behind it."""
        self._vfs.unregister()
        shutil.rmtree(self._scratch, ignore_errors=True)


class _WatchingVfs(apsw.VFS):
    """SQLite's way to the disk."""

    def __init__(self, name: str, disk: SimulatedDisk) -> None:
        self.name = name
        self.disk = disk
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_WatchingFile":
        return _WatchingFile(name, flags, self.disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.disk.call("sqlite delete", Path(filename).name)
        self.disk.database(Path(filename).name).truncate(0)
        super().xDelete(filename, syncdir)


class _WatchingFile(apsw.VFSFile):
    """One of SQLite's files. A failure is raised as SQLite's own errors, so that it takes it as the disk's."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], disk: SimulatedDisk) -> None:
        self._disk = disk
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(full).name if full else ""
        self._platter = disk.database(self._name) if full else FileState()
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._call("sqlite write")
        self._platter.write(offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._call("sqlite truncate")
        self._platter.truncate(newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._call("sqlite sync")
        self._platter.sync()

    def _call(self, call: str) -> None:
        try:
            self._disk.call(call, self._name)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (apsw.FullError if full else apsw.IOError)(error.strerror or "") from None

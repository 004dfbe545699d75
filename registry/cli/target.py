"""Reading and writing in an untrusted directory.

Another user may have prepared the directory: it is on a stick, on a share, or in /tmp.

Only regular files are read. Nothing outside the directory is written, replaced or removed, whatever links it contains,
even if they are exchanged meanwhile. Directories are opened one below the other and never through a symbolic link. A
file is written under a temporary name and then renamed, which replaces a link and does not follow it. The directory
itself may be a link, since the operator has named it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from registry.errors import CannotStart

PART = ".part"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class _Place(NamedTuple):
    """A name in a directory that is open."""

    directory: int
    name: str

    @property
    def part(self) -> str:
        return self.name + PART


def open_plain(path: Path | str, directory: int | None = None) -> BinaryIO | None:
    """A file, to be read; None for a link, or what is no file, such as a pipe or a device that never ends."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for a writer
    try:
        descriptor = os.open(path, flags, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


class Directory:
    """A directory to read from. Paths in it are relative, with slashes. Raises CannotStart for a link on the way."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def _place(self, path: str, make: bool = False) -> Iterator[_Place]:
        *above, name = path.split("/")
        here = os.open(self._directory, _DIRECTORY)
        try:
            for depth, one in enumerate(above):
                below = self._below(here, one, self._directory.joinpath(*above[: depth + 1]), make)
                os.close(here)
                here = below
            yield _Place(here, name)
        except OSError as error:
            if error.filename in (name, name + PART):
                error.filename = str(self._directory / path)
            raise
        finally:
            os.close(here)

    @staticmethod
    def _below(here: int, name: str, path: Path, make: bool) -> int:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=here)
        try:
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise CannotStart(f"{path} is no directory but a link or a file; it is not followed") from None
            error.filename = str(path)
            raise

    def open(self, path: str) -> BinaryIO | None:
        """Open a file to read; return None where there is none. Anything but a regular file counts as missing."""
        try:
            with self._place(path) as place:
                return open_plain(place.name, place.directory)
        except FileNotFoundError:
            return None

    def stat(self, path: str) -> os.stat_result | None:
        """Return the status of a file; None where there is none."""
        file = self.open(path)
        if file is None:
            return None
        with file:
            return os.fstat(file.fileno())

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, in order; an empty list where there is no directory."""
        try:
            with self._place(f"{path}/") as place:
                return sorted(os.listdir(place.directory))
        except (CannotStart, FileNotFoundError):
            return []


class Target(Directory):
    """A directory to write into."""

    def __init__(self, directory: Path) -> None:
        """Create the directory where it is missing."""
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory)

    def create(self, path: str) -> BinaryIO:
        """A file that is on its way to `path`, see `put`."""
        with self._place(path, make=True) as place:
            self._unlink(place.directory, place.part)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.fdopen(os.open(place.part, flags, 0o666, dir_fd=place.directory), "wb")

    def link(self, source: Path, path: str) -> None:
        """The same as `create`, by another name for a file that is elsewhere. Raises OSError where that cannot be."""
        with self._place(path, make=True) as place:
            self._unlink(place.directory, place.part)
            os.link(source, place.part, dst_dir_fd=place.directory)

    def put(self, path: str, durably: bool = False) -> None:
        """Rename the temporary file of `path` to its place."""
        with self._place(path) as place:
            os.rename(place.part, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
            if durably:
                os.fsync(place.directory)

    def drop(self, path: str) -> None:
        """Remove the temporary file of `path`."""
        self.remove(path + PART)

    def remove(self, path: str) -> None:
        """Remove a file, or a link, if it is there."""
        with suppress(FileNotFoundError), self._place(path) as place:
            os.unlink(place.name, dir_fd=place.directory)

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file in its place."""
        with self.create(path) as file:
            file.write(data)
        self.put(path)

    @staticmethod
    def _unlink(directory: int, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)

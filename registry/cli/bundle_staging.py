"""A verified copy of a bundle, inside the data directory that imports it.

A person with access to the stick or the share can exchange a file between two readings of it. So every file of a bundle
is read once: the same pass hashes it and writes the copy, and the import uses the copy alone. Only regular files are
read, each up to a bound, and through no link.

An import that is broken off leaves its copy behind, and the next one goes on with it.
"""

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from registry.adapters.disk import SystemDisk
from registry.cli.target import Directory, Target
from registry.errors import CannotStart
from registry.oci.names import Digest, algorithm_of
from registry.storage.checks import ContentHashes
from registry.storage.store import READ_BYTES, content_path

STAGING = "import"


def open_file(source: Directory, path: str) -> BinaryIO | None:
    """A regular file of a bundle, to be read; None where there is none, or a link, a pipe or a device."""
    try:
        return source.open(path)
    except (OSError, CannotStart):
        return None


def read_file(source: Directory, path: str, limit_bytes: int) -> bytes | None:
    """Read a regular file of a bundle, once. Return None where it is missing, unreadable or larger than the limit."""
    file = open_file(source, path)
    if file is None:
        return None
    try:
        with file:
            data = file.read(limit_bytes + 1)
    except OSError:
        return None
    return data if len(data) <= limit_bytes else None


class Staging:
    """The copy. Paths in it are those of the bundle."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._target = Target(data / STAGING)

    def keep(self, path: str, data: bytes) -> None:
        """Keep a document or a body that was verified as it was read."""
        self._target.write(path, data)

    def read(self, path: str) -> bytes:
        """Return the bytes that were kept at a path."""
        file = self._target.open(path)
        assert file is not None, "it was kept before"
        with file:
            return file.read()

    def keep_content(self, source: Directory, digest: Digest, size: int) -> ContentHashes | None:
        """Copy a content, durably, and hash what is copied; None where it is not the content of its digest."""
        path = content_path(digest)
        checks = hash_file(self._target.open(path), digest, size)
        if checks is not None:
            return checks  # of an import that was broken off
        with self._target.create(path) as writing:
            checks = hash_file(open_file(source, path), digest, size, writing)
            writing.flush()
            os.fsync(writing.fileno())
        if checks is None:
            self._target.drop(path)
        else:
            self._target.put(path)
        return checks

    def place(self, digest: Digest) -> None:
        """Move a content to its place in the data directory, durably."""
        path = content_path(digest)
        place = self._data / path
        place.parent.mkdir(parents=True, exist_ok=True)
        (self._data / STAGING / path).replace(place)
        SystemDisk(self._data).sync_directory(str(place.parent.relative_to(self._data)))

    def clear(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._data / STAGING, ignore_errors=True)


def hash_file(file: BinaryIO | None, digest: Digest, size: int, copy: BinaryIO | None = None) -> ContentHashes | None:
    """Hash what a file holds and write it to `copy`, reading it once and never beyond `size`. Return its checks; None
    where there is no file, it cannot be read, or has other bytes than those of the digest. Closes the file."""
    if file is None:
        return None
    checks = ContentHashes(algorithm_of(digest))
    with file:
        while checks.size <= size and (piece := _read(file)):
            checks.update(piece)
            if copy is not None:
                copy.write(piece)
    return checks if checks.size == size and checks.digest() == digest else None


def _read(file: BinaryIO) -> bytes:
    """The next piece. What cannot be read is missing."""
    try:
        return file.read(READ_BYTES)
    except OSError:
        return b""

"""Re-hashing a data directory's content. It may be in use: content never changes, and the catalog is only read."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from registry.blobs.store import READ_BYTES, content_path
from registry.cli.catalog_file import open_read_only
from registry.errors import CannotStart
from registry.names import Digest, algorithm_of


class Checked(NamedTuple):
    """One content, and what is wrong with it, if anything."""

    digest: Digest
    size: int
    problem: str | None


class DataDirectory:
    """A data directory opened for checking. Raises CannotStart where it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_read_only(path)
        try:
            query = "SELECT size FROM content UNION ALL SELECT LENGTH(body) FROM manifests"
            sizes: Any = self._connection.execute(query)
            self.total_bytes = sum(int(size) for (size,) in sizes)
        except apsw.Error as error:
            raise CannotStart(f"the catalog in {path} cannot be read: {error}") from None

    def check(self) -> Iterator[Checked]:
        """Hash every content file and every manifest body."""
        rows: list[Any] = self._connection.execute("SELECT digest, size FROM content ORDER BY digest").fetchall()
        for digest, size in ((Digest(row[0]), int(row[1])) for row in rows):
            yield Checked(digest, size, self._check_file(digest, size))
        for digest, body in self._connection.execute("SELECT digest, body FROM manifests"):
            computed = hashlib.new(algorithm_of(digest), body).hexdigest()
            yield Checked(digest, len(body), None if digest.endswith(computed) else "the manifest's body has changed")

    def _check_file(self, digest: Digest, size: int) -> str | None:
        hashed = hashlib.new(algorithm_of(digest))
        read = 0
        try:
            with open(self._path / content_path(digest), "rb", buffering=0) as file:
                while piece := file.read(READ_BYTES):
                    hashed.update(piece)
                    read += len(piece)
        except FileNotFoundError:
            return "the file is missing"
        except OSError as error:
            return f"the file cannot be read: {error.strerror}"
        if read != size:
            return f"the file has {read} of {size} bytes"
        return None if digest.endswith(f":{hashed.hexdigest()}") else "the content has changed"

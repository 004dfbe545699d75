"""Checking a data directory's content. It may be in use: content never changes, and the catalog is only read.

Each MiB is compared with the BLAKE3 digest that was taken of it when it came, on all cores; or, when that is asked for,
each content with the digest it is known by, which finds also what was changed together with its row in the catalog and
takes three times as long.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from registry.adapters.disk import SystemDisk
from registry.catalog.content import ContentRow
from registry.cli.catalog_file import open_read_only
from registry.errors import CannotStart
from registry.oci.names import Digest, algorithm_of
from registry.ports import DiskFile
from registry.storage.checked import Corrupt, VerifiedFile
from registry.storage.checks import CHECK_SPAN_BYTES
from registry.storage.store import READ_BYTES, content_path

WINDOW_BYTES = 32 * CHECK_SPAN_BYTES
"""Bytes of one content that one job checks, so that a large content keeps all cores busy."""


class Checked(NamedTuple):
    """One content, and what is wrong with it, if anything."""

    digest: Digest
    size: int
    problem: str | None


_Check = Callable[[DiskFile], str | None]


class _Window(NamedTuple):
    """A part of a content."""

    row: ContentRow
    first: int

    @property
    def end(self) -> int:
        return min(self.first + WINDOW_BYTES, self.row.size)


class DataDirectory:
    """A data directory opened for checking. Raises CannotStart where it is none."""

    def __init__(self, path: Path) -> None:
        self._disk = SystemDisk(path)
        self._connection = open_read_only(path)
        try:
            query = "SELECT size FROM content UNION ALL SELECT LENGTH(body) FROM manifests"
            sizes: Any = self._connection.execute(query)
            self.total_bytes = sum(int(size) for (size,) in sizes)
        except apsw.Error as error:
            raise CannotStart(f"the catalog in {path} cannot be read: {error}") from None

    def check(self, by_digest: bool = False) -> Iterator[Checked]:
        """Check every content file and every manifest body."""
        sql = "SELECT digest, size, chunk_digests, checked_ms FROM content ORDER BY digest"
        rows = [ContentRow(*row) for row in self._connection.execute(sql)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            if by_digest:
                yield from pool.map(self._check_digest, rows)
            else:
                yield from self._check_spans(rows, pool)
        for digest, body in self._connection.execute("SELECT digest, body FROM manifests"):
            computed = hashlib.new(algorithm_of(digest), body).hexdigest()
            yield Checked(digest, len(body), None if digest.endswith(computed) else "the manifest's body has changed")

    def _check_spans(self, rows: list[ContentRow], pool: ThreadPoolExecutor) -> Iterator[Checked]:
        windows = [_Window(row, first) for row in rows for first in range(0, max(row.size, 1), WINDOW_BYTES)]
        problem: str | None = None
        for window, found in zip(windows, pool.map(self._check_window, windows), strict=True):
            problem = problem or found
            if window.end == window.row.size:
                yield Checked(window.row.digest, window.row.size, problem)
                problem = None

    def _check_window(self, window: _Window) -> str | None:
        def check(file: DiskFile) -> str | None:
            checked = VerifiedFile(file, window.row)
            checked.check_size()
            for first in range(window.first, window.end, CHECK_SPAN_BYTES):
                checked.span(first)
            return None

        return self._problem(window.row, check)

    def _check_digest(self, row: ContentRow) -> Checked:
        def check(file: DiskFile) -> str | None:
            VerifiedFile(file, row).check_size()
            hashed = hashlib.new(algorithm_of(row.digest))
            for at in range(0, row.size, READ_BYTES):
                hashed.update(file.pread(at, READ_BYTES))
            return None if row.digest.endswith(f":{hashed.hexdigest()}") else "its digest is another one"

        return Checked(row.digest, row.size, self._problem(row, check))

    def _problem(self, row: ContentRow, check: _Check) -> str | None:
        try:
            file = self._disk.open(content_path(row.digest))
            try:
                return check(file)
            finally:
                file.close()
        except FileNotFoundError:
            return "the file is missing"
        except OSError as error:
            return f"the file cannot be read: {error.strerror}"
        except Corrupt as corrupt:
            return str(corrupt)

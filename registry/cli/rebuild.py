"""A new catalog for a data directory whose own is lost or damaged.

The content files say what they are by their names, and are believed when their bytes agree. Tags, manifests and links
are not in them: they come from the other instances when this one is started again, as another instance, or from a
backup.
"""

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

import apsw

from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog.catalog import PATH, Catalog
from registry.catalog.change_sink import Unpublished
from registry.catalog.content import add_content
from registry.cli.catalog_file import instance_of, open_read_only
from registry.errors import CannotStart
from registry.oci.names import ALGORITHMS, Digest, is_digest
from registry.storage.checks import ContentHashes
from registry.storage.store import READ_BYTES

PART = "rebuilding"


class Rebuilt(NamedTuple):
    """The result of a rebuild."""

    contents: int
    size_bytes: int
    wrong: list[str]
    """Files that cannot be read, or have other bytes than their names say; they are left where they are, unused."""
    aside: Path | None
    """The path to which the former catalog was moved; None where there was none."""
    before: str
    """Id of the instance that owned the former catalog; empty where it cannot be read any more."""


def rebuild(data: Path) -> Rebuilt:
    """Raises CannotStart where there is nothing to rebuild from, or no need to."""
    if not (data / "blobs").is_dir():
        raise CannotStart(f"{data} is not a data directory of Concord: it has no content")
    if _is_whole(data):
        raise CannotStart(f"the catalog {data / PATH} is whole; to have a new one all the same, move it away")
    part = data / PART
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    count, size_bytes, wrong = asyncio.run(_rebuild(data, part))
    before = _owner_before(data)
    aside = _move_aside(data)
    (part / PATH).rename(data / PATH)
    SystemDisk(data).sync_directory(".")
    shutil.rmtree(part)
    return Rebuilt(count, size_bytes, wrong, aside, before)


def _owner_before(data: Path) -> str:
    try:
        return instance_of(data)
    except (CannotStart, apsw.Error):
        return ""


def _is_whole(data: Path) -> bool:
    """Return whether there is a catalog that passes SQLite's quick check."""
    try:
        catalog = open_read_only(data)
        return bool(catalog.pragma("quick_check") == "ok")
    except (CannotStart, apsw.Error):
        return False


def _move_aside(data: Path) -> Path | None:
    """Rename the present catalog, from which an expert may still recover data. Return its new path; None for none."""
    if not (data / PATH).exists():
        return None
    number = 1
    while (data / f"{PATH}.damaged-{number}").exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        file = data / (PATH + suffix)
        if file.exists():
            file.rename(data / f"{PATH}.damaged-{number}{suffix}")
    return data / f"{PATH}.damaged-{number}"


async def _rebuild(data: Path, part: Path) -> tuple[int, int, list[str]]:
    """Write a catalog beside the one that is there, so that a rebuild that breaks off changes nothing."""
    clock = SystemClock()
    catalog = Catalog(SystemDisk(part), clock)
    await catalog.start()
    catalog.database.attach(Unpublished())
    count, size_bytes, wrong = 0, 0, []
    for algorithm in ALGORITHMS:
        for file in sorted((data / "blobs" / algorithm).glob("??/*")):
            name = f"{algorithm}:{file.name}"
            checks = _checks_of(file, algorithm)
            if checks is None or not is_digest(name) or checks.digest() != name:
                wrong.append(str(file))
                continue
            digest, size, spans, now_ms = Digest(name), checks.size, checks.per_mib(), clock.now_ms()
            await catalog.database.write(
                lambda tx, row=(digest, size, spans, now_ms): add_content(tx, *row)  # type: ignore[misc]
            )
            count, size_bytes = count + 1, size_bytes + size
    await catalog.database.close()
    return count, size_bytes, wrong


def _checks_of(file: Path, algorithm: str) -> ContentHashes | None:
    """None for what cannot be read."""
    checks = ContentHashes(algorithm)
    try:
        with file.open("rb", buffering=0) as content:
            while piece := content.read(READ_BYTES):
                checks.update(piece)
    except OSError:
        return None
    return checks

"""Bundles: repositories as files, for a site without a network.

    bundle.json          what is in it, with a BLAKE3 digest of each file
    bundle.mac           the MAC of that under the cluster's key
    documents/<number>   a repository's document, as one update
    bodies/<hex>         manifests
    blobs/<algorithm>/<2 hex>/<hex>

Exporting reads a data directory, also while an instance runs on it. Importing writes one, so the instance is stopped;
everything is verified before anything is taken in, and what a bundle says merges with what is there as if it had come
from another instance. Both go on where they were broken off.
"""

import asyncio
import hashlib
import hmac
import os
import re
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import apsw
import msgspec
from blake3 import blake3

from crdt.delta import decode_delta
from crdt.document import Document
from crdt.errors import CrdtError
from registry.blobs.checks import Checks
from registry.blobs.store import READ_BYTES, content_path
from registry.catalog.catalog import Catalog
from registry.catalog.content import add_content, held_size
from registry.catalog.incoming import Incoming, keep_wanted_body, note_writers
from registry.catalog.queries import KIND
from registry.cli.catalog_file import open_read_only
from registry.cli.target import PART, Target
from registry.cluster.keys import ClusterKey
from registry.errors import CannotStart
from registry.names import Digest, algorithm_of, is_digest
from registry.system.clock import SystemClock
from registry.system.disk import SystemDisk

VERSION = 1
LIST = "bundle.json"
_FILE = re.compile(r"documents/[0-9]{1,9}|bodies/[0-9a-f]{64,128}")
MAC = "bundle.mac"


class DocumentFile(msgspec.Struct):
    """A repository's document in a bundle."""

    name: str
    file: str
    hash: str
    writers: dict[str, str]


class Bundle(msgspec.Struct):
    """What a bundle says of itself."""

    version: int
    documents: list[DocumentFile]
    bodies: dict[str, str]
    """Manifests: digest to file."""
    contents: dict[str, int]
    """Content: digest to size."""


class Moved(NamedTuple):
    """How much was exported or imported."""

    repositories: int
    manifests: int
    contents: int
    size_bytes: int
    new: int
    """Contents that were not in the target yet."""
    wrong: list[Digest]
    """Contents that were damaged and are left out."""


def export_bundle(data: Path, target: Path, patterns: list[str], keys: list[ClusterKey]) -> Moved:
    """Write the repositories whose names match. Raises CannotStart."""
    if target.exists() and any(target.iterdir()) and not (target / "documents").exists():
        raise CannotStart(f"{target} is neither empty nor a bundle")
    reading = open_read_only(data)
    try:
        reading.execute("BEGIN")  # everything as of one moment
        return _export(reading, data, target, patterns, keys)
    except apsw.Error as error:
        raise CannotStart(f"the catalog in {data} cannot be read: {error}") from None
    finally:
        reading.close()


def _export(
    reading: apsw.Connection, data: Path, directory: Path, patterns: list[str], keys: list[ClusterKey]
) -> Moved:
    documents = _documents(reading, patterns)
    if patterns and not any(name.startswith(KIND) for _, name in documents):
        raise CannotStart(f"no repository is matched by {', '.join(patterns)}")
    target = Target(directory)
    bundle, new, wrong = Bundle(VERSION, [], {}, {}), 0, []
    for document, name in documents:
        update = _update_of(reading, document)
        file = f"documents/{len(bundle.documents)}"
        target.write(file, update)
        writers = {f"{writer:x}": who for writer, who in _rows(reading, _WRITERS, document)}
        bundle.documents.append(DocumentFile(name, file, blake3(update).hexdigest(), writers))
        for digest, body in _rows(reading, _BODIES, document):
            file = f"bodies/{digest.partition(':')[2]}"
            target.write(file, body)
            bundle.bodies[digest] = file
        for digest, size in _rows(reading, _CONTENTS, document):
            bundle.contents[digest] = size
    for digest, size in list(bundle.contents.items()):
        path = content_path(Digest(digest))
        if _is_right(target.open(path), Digest(digest), size):
            continue
        if not _copy(data / path, target, path):
            del bundle.contents[digest]  # collected or evicted meanwhile
        elif not _is_right(target.open(path + PART), Digest(digest), size):
            target.drop(path)
            del bundle.contents[digest]
            wrong.append(Digest(digest))
        else:
            target.put(path)
            new += 1
    said = msgspec.json.encode(bundle)
    target.write(LIST, said)
    target.write(MAC, _mac(said, keys[0] if keys else None).encode())
    return _moved(bundle, new, wrong)


def _copy(source: Path, target: Target, path: str) -> bool:
    """False when it is not there."""
    try:
        with source.open("rb") as reading, target.create(path) as writing:
            shutil.copyfileobj(reading, writing, READ_BYTES)
    except FileNotFoundError:
        return False
    return True


def import_bundle(source: Path, data: Path, keys: list[ClusterKey]) -> Moved:
    """Take in a bundle. Raises CannotStart for one that is not whole, or not of this cluster; it changes nothing."""
    bundle = _verified(source, keys)
    return asyncio.run(_import(source, data, bundle))


def _verified(source: Path, keys: list[ClusterKey]) -> Bundle:
    try:
        said = (source / LIST).read_bytes()
        mac = (source / MAC).read_bytes()
    except OSError as error:
        raise CannotStart(f"{source} is no bundle: {error.strerror}: {error.filename}") from None
    signers: list[ClusterKey | None] = [*keys] or [None]
    if not any(hmac.compare_digest(mac, _mac(said, key).encode()) for key in signers):
        raise CannotStart(f"the bundle {source} was not made with this cluster's key, or was changed")
    try:
        bundle = msgspec.json.decode(said, type=Bundle)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CannotStart(f"the bundle {source} cannot be read: {error}") from None
    if bundle.version != VERSION:
        raise CannotStart(f"the bundle {source} was made by a newer version of Concord")
    wrong = _wrong_files(source, bundle)
    if wrong:
        raise CannotStart(f"the bundle {source} is damaged: {', '.join(wrong[:3])}" + (" …" if wrong[3:] else ""))
    return bundle


def _wrong_files(source: Path, bundle: Bundle) -> list[str]:
    wrong = []
    for document in bundle.documents:
        update = _bytes(source / document.file) if _FILE.fullmatch(document.file) else None
        if update is None or blake3(update).hexdigest() != document.hash or not _is_update(update):
            wrong.append(document.file)
    for digest, file in bundle.bodies.items():
        body = _bytes(source / file) if _FILE.fullmatch(file) else None
        if body is None or not is_digest(digest) or _hex(digest, body) != digest.partition(":")[2]:
            wrong.append(file)
    for digest, size in bundle.contents.items():
        if not is_digest(digest) or not _is_right(_opened(source / content_path(Digest(digest))), Digest(digest), size):
            wrong.append(digest)
    return wrong


async def _import(source: Path, data: Path, bundle: Bundle) -> Moved:
    clock, disk = SystemClock(), SystemDisk(data)
    catalog, new = Catalog(disk, clock), 0
    await catalog.start()
    try:
        for digest, size in bundle.contents.items():
            if held_size(catalog.database, Digest(digest)) is None:
                checks = _place(source, data, Digest(digest))
                row = (Digest(digest), size, checks.per_mib(), clock.now_ms())
                await catalog.database.write(lambda tx, row=row: add_content(tx, *row))  # type: ignore[misc]
                new += 1
        for document in bundle.documents:
            update = (source / document.file).read_bytes()
            await catalog.database.write(lambda tx, writers=document.writers: note_writers(tx, writers))  # type: ignore[misc]
            await catalog.take_in(Incoming(document.name, update, decode_delta(update), {}))
        for file in bundle.bodies.values():
            body = (source / file).read_bytes()
            await catalog.database.write(lambda tx, body=body: keep_wanted_body(tx, body))  # type: ignore[misc]
    finally:
        await catalog.stop()
    return _moved(bundle, new, [])


def _place(source: Path, data: Path, digest: Digest) -> Checks:
    """Copy a content file to its place, durably; what was copied is verified once more."""
    place = data / content_path(digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = data / f"import-{digest.replace(':', '-')}"
    checks = Checks(algorithm_of(digest))
    with (source / content_path(digest)).open("rb") as reading, part.open("wb") as writing:
        while piece := reading.read(READ_BYTES):
            checks.update(piece)
            writing.write(piece)
        writing.flush()
        os.fsync(writing.fileno())
    if checks.digest() != digest:
        part.unlink()
        raise CannotStart(f"the bundle changed while it was read: {digest}")
    part.replace(place)
    SystemDisk(data).sync_directory(str(place.parent.relative_to(data)))
    return checks


def _moved(bundle: Bundle, new: int, wrong: list[Digest]) -> Moved:
    total = sum(bundle.contents.values())
    return Moved(len(bundle.documents), len(bundle.bodies), len(bundle.contents), total, new, wrong)


def _mac(said: bytes, key: ClusterKey | None) -> str:
    """Without a cluster's key it only tells accidents."""
    return blake3(said, key=key.bundles).hexdigest() if key else blake3(said).hexdigest()


def _documents(reading: apsw.Connection, patterns: list[str]) -> list[tuple[int, str]]:
    rows: Any = reading.execute("SELECT id, name FROM documents ORDER BY name").fetchall()
    return [
        (number, name)
        for number, name in rows
        if name.startswith(KIND) and any(fnmatchcase(name.removeprefix(KIND), one) for one in patterns or ["*"])
    ]


def _update_of(reading: apsw.Connection, document: int) -> bytes:
    parts = [data for (data,) in _rows(reading, "SELECT data FROM snapshots WHERE document = ?", document)]
    parts += [data for (data,) in _rows(reading, "SELECT delta FROM log WHERE document = ? ORDER BY number", document)]
    return Document(parts).snapshot()


def _is_update(update: bytes) -> bool:
    try:
        decode_delta(update)
    except CrdtError:
        return False
    return True


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _hex(digest: str, body: bytes) -> str:
    return hashlib.new(algorithm_of(Digest(digest)), body).hexdigest()


def _is_right(file: BinaryIO | None, digest: Digest, size: int) -> bool:
    """Whether a file has the bytes of its digest. Closes it."""
    checks = _checks_of(file, digest) if file is not None else None
    return checks is not None and checks.size == size and checks.digest() == digest


def _checks_of(file: BinaryIO, digest: Digest) -> Checks | None:
    """None for what cannot be read."""
    checks = Checks(algorithm_of(digest))
    try:
        with file:
            while piece := file.read(READ_BYTES):
                checks.update(piece)
    except OSError:
        return None
    return checks


def _rows(reading: apsw.Connection, sql: str, document: int) -> list[Any]:
    return reading.execute(sql, (document,)).fetchall()


_WRITERS = "SELECT w.writer, w.instance FROM vectors v JOIN writers w ON w.writer = v.writer WHERE v.document = ?"
_BODIES = (
    "SELECT DISTINCT m.digest, m.body FROM facts f JOIN manifests m ON m.digest = f.key "
    "WHERE f.document = ? AND f.kind = 'm'"
)
_CONTENTS = (
    "SELECT DISTINCT c.digest, c.size FROM facts f JOIN content c ON c.digest = f.key "
    "WHERE f.document = ? AND f.kind = 'b'"
)

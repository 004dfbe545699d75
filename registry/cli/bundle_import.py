"""Taking a bundle into a data directory that no instance runs on.

Everything is verified before anything is taken in, and what a bundle says merges with what is there as if it had come
from another instance. But a bundle brings repositories: it has no say about the cluster and its members. Documents of
kinds that this version does not know are kept and passed on, as everywhere, and mean nothing to it.
"""

import asyncio
import hashlib
import hmac
import os
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec
from blake3 import blake3

from crdt.delta import decode_delta
from crdt.errors import CrdtError
from crdt.gate import admit
from registry.blobs.checks import Checks
from registry.blobs.store import READ_BYTES, content_path
from registry.catalog import membership, queries
from registry.catalog.catalog import Catalog
from registry.catalog.content import add_content, held_size
from registry.catalog.incoming import Incoming, keep_wanted_body, note_writers
from registry.cli.bundle import LIST, MAC, VERSION, Bundle, Moved, is_right, mac_of, moved
from registry.cli.target import open_plain
from registry.cluster.keys import ClusterKey
from registry.errors import CannotStart, NameInvalid
from registry.manifest import MAX_MANIFEST_BYTES
from registry.names import Digest, algorithm_of, is_digest, parse_repository
from registry.system.clock import SystemClock
from registry.system.disk import SystemDisk

_OTHER_KIND = re.compile(r"[a-z][a-z0-9-]{0,62}/[\x21-\x7e]{1,255}")
"""Documents of kinds that a newer version may have."""
_FILE = re.compile(r"documents/[0-9]{1,9}|bodies/[0-9a-f]{64,128}")


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
    if not any(hmac.compare_digest(mac, mac_of(said, key).encode()) for key in signers):
        raise CannotStart(f"the bundle {source} was not made with this cluster's key, or was changed")
    try:
        bundle = msgspec.json.decode(said, type=Bundle)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CannotStart(f"the bundle {source} cannot be read: {error}") from None
    if bundle.version != VERSION:
        raise CannotStart(f"the bundle {source} was made by a newer version of Concord")
    for document in bundle.documents:
        _check_name(source, document.name)
    wrong = _wrong_files(source, bundle)
    if wrong:
        raise CannotStart(f"the bundle {source} is damaged: {', '.join(wrong[:3])}" + (" …" if wrong[3:] else ""))
    return bundle


def _check_name(source: Path, name: str) -> None:
    """Raises CannotStart for a document that no bundle may bring."""
    if name.startswith(membership.KIND):
        raise CannotStart(f"the bundle {source} brings {name[:100]!r}, which belongs to the cluster; no bundle may")
    try:
        if name.startswith(queries.KIND):
            parse_repository(name.removeprefix(queries.KIND))
        elif not _OTHER_KIND.fullmatch(name):
            raise NameInvalid("this is no document")
    except NameInvalid:
        raise CannotStart(f"the bundle {source} brings {name[:100]!r}, which is no name of a document") from None


def _wrong_files(source: Path, bundle: Bundle) -> list[str]:
    wrong = []
    for document in bundle.documents:
        update = _bytes(source / document.file) if _FILE.fullmatch(document.file) else None
        if update is None or blake3(update).hexdigest() != document.hash or not _is_whole(update):
            wrong.append(document.file)
    for digest, file in bundle.bodies.items():
        body = _bytes(source / file, MAX_MANIFEST_BYTES) if _FILE.fullmatch(file) else None
        if body is None or not is_digest(digest) or _hex(digest, body) != digest.partition(":")[2]:
            wrong.append(file)
    for digest, size in bundle.contents.items():
        if not is_digest(digest) or not is_right(_opened(source / content_path(Digest(digest))), Digest(digest), size):
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
            await catalog.database.write_in_steps(partial(keep_wanted_body, body=body))
    finally:
        await catalog.stop()
    return moved(bundle, new, [])


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


def _is_whole(update: bytes) -> bool:
    """Whether nothing is missing before an update, so that it can be taken in whatever is here."""
    try:
        return admit({}, decode_delta(update), {}) is not None
    except CrdtError:
        return False


def _opened(path: Path) -> BinaryIO | None:
    try:
        return open_plain(path)
    except OSError:
        return None


def _bytes(path: Path, limit_bytes: int | None = None) -> bytes | None:
    """A file; None where there is none, or one above the limit."""
    file = _opened(path)
    if file is None:
        return None
    with file:
        if limit_bytes is not None and os.fstat(file.fileno()).st_size > limit_bytes:
            return None
        return file.read()


def _hex(digest: str, body: bytes) -> str:
    return hashlib.new(algorithm_of(Digest(digest)), body).hexdigest()

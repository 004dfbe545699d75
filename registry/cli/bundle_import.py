"""Taking a bundle into a data directory that no instance runs on.

Everything is verified before anything is imported, and exactly the verified bytes are imported: each file is read once,
into a copy (see `bundle_staging`). The facts of a bundle merge with those of the catalog as if they had come from
another instance. But a bundle brings repositories alone: it changes nothing about the cluster, its members, and rights.
Documents of kinds that this version does not know are kept and passed on, as everywhere, and mean nothing to it.
"""

import asyncio
import hashlib
import hmac
import re
from functools import partial
from pathlib import Path

import msgspec
from blake3 import blake3

from crdt.delta import decode_delta
from crdt.errors import CrdtError
from crdt.gate import admit
from registry.access import facts as access
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog import membership, queries
from registry.catalog.catalog import PATH, Catalog
from registry.catalog.change_sink import Unpublished
from registry.catalog.content import add_content
from registry.catalog.incoming import Incoming, note_writers, store_missing_body
from registry.cli.bundle import LIST, MAC, VERSION, Bundle, Moved, mac_of, moved
from registry.cli.bundle_staging import Staging, hash_file, open_file, read_file
from registry.cli.catalog_file import open_read_only
from registry.cli.target import Directory
from registry.cli.undo import Undo
from registry.cluster.rpc.keys import ClusterKey
from registry.errors import CannotStart, NameInvalid, NeedsUpgrade
from registry.oci.manifest import MAX_MANIFEST_BYTES
from registry.oci.names import Digest, algorithm_of, is_digest, parse_repository
from registry.storage.checks import ContentHashes
from registry.storage.store import content_path
from registry.units import GIB

MAX_LIST_BYTES = GIB
"""Bound on `bundle.json`: some 100 bytes for each content, so that ten million fit."""
MAX_MAC_BYTES = 1024
MAX_DOCUMENT_BYTES = GIB
"""Bound on a document: the same as for one that is sent between instances."""
_OTHER_KIND = re.compile(r"[a-z][a-z0-9-]{0,62}/[\x21-\x7e]{1,255}")
"""Documents of kinds that a newer version may have."""
_FILE = re.compile(r"documents/[0-9]{1,9}|bodies/[0-9a-f]{64,128}")


def import_bundle(source: Path, data: Path, keys: list[ClusterKey], reassert: bool = False) -> Moved:
    """Take in a bundle; with `reassert`, what was deleted since as new assertions. Raises CannotStart for a bundle that
    is not whole, or not of this cluster; it changes nothing."""
    files = Directory(source)
    bundle = _listed(source, files, keys)
    staging = Staging(data)
    try:
        checks = _staged(source, files, bundle, staging, _held(data))
    except (CannotStart, OSError):
        staging.clear()
        raise
    try:
        done = asyncio.run(_import(data, bundle, staging, checks, reassert))
    except NeedsUpgrade as error:
        raise CannotStart(f"not everything can be asserted anew: {error.message}") from None
    staging.clear()
    return done


def _listed(source: Path, files: Directory, keys: list[ClusterKey]) -> Bundle:
    """Read and authenticate a bundle's table of contents. Raises CannotStart."""
    if not source.is_dir():
        raise CannotStart(f"{source} is not a bundle: there is no such directory")
    encoded, mac = read_file(files, LIST, MAX_LIST_BYTES), read_file(files, MAC, MAX_MAC_BYTES)
    for name, found in ((LIST, encoded), (MAC, mac)):
        if found is None:
            raise CannotStart(f"{source} is not a bundle: it has no {name}, or one that is not a regular file")
    assert encoded is not None and mac is not None, "else it was refused"
    signers: list[ClusterKey | None] = [*keys] or [None]
    if not any(hmac.compare_digest(mac, mac_of(encoded, key).encode()) for key in signers):
        raise CannotStart(f"the bundle {source} was not made with this cluster's key, or was changed")
    try:
        bundle = msgspec.json.decode(encoded, type=Bundle)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CannotStart(f"the bundle {source} cannot be read: {error}") from None
    if bundle.version != VERSION:
        raise CannotStart(f"the bundle {source} was made by a newer version of Concord")
    for document in bundle.documents:
        _check_name(source, document.name)
    return bundle


def _check_name(source: Path, name: str) -> None:
    """Raises CannotStart for a document that no bundle may bring."""
    if name.startswith(membership.KIND) or name.partition("/")[0] == access.DOCUMENT:
        raise CannotStart(
            f"the bundle {source} has the document {name[:100]!r}, which belongs to the cluster and cannot be imported"
        )
    try:
        if name.startswith(queries.KIND):
            parse_repository(name.removeprefix(queries.KIND))
        elif not _OTHER_KIND.fullmatch(name):
            raise NameInvalid("this is no document")
    except NameInvalid:
        raise CannotStart(f"the bundle {source} has a document with the invalid name {name[:100]!r}") from None


def _staged(
    source: Path, files: Directory, bundle: Bundle, staging: Staging, held: frozenset[str]
) -> dict[Digest, ContentHashes]:
    """Copy what is intact, each file read once. Return the checks of the contents that are not here yet. Raises
    CannotStart where anything is wrong."""
    wrong, checks = [], dict[Digest, ContentHashes]()
    for document in bundle.documents:
        update = read_file(files, document.file, MAX_DOCUMENT_BYTES) if _FILE.fullmatch(document.file) else None
        if update is None or blake3(update).hexdigest() != document.hash or not _is_whole(update):
            wrong.append(document.file)
        else:
            staging.keep(document.file, update)
    for digest, file in bundle.bodies.items():
        body = read_file(files, file, MAX_MANIFEST_BYTES) if _FILE.fullmatch(file) else None
        if body is None or not is_digest(digest) or _hex(digest, body) != digest.partition(":")[2]:
            wrong.append(file)
        else:
            staging.keep(file, body)
    for name, size in bundle.contents.items():
        found = _staged_content(files, name, size, staging, held) if is_digest(name) else None
        if found is None:
            wrong.append(name)
        elif name not in held:
            checks[Digest(name)] = found
    if wrong:
        raise CannotStart(f"the bundle {source} is damaged: {', '.join(wrong[:3])}" + (" …" if wrong[3:] else ""))
    return checks


def _staged_content(
    files: Directory, name: str, size: int, staging: Staging, held: frozenset[str]
) -> ContentHashes | None:
    digest = Digest(name)
    if name in held:
        return hash_file(open_file(files, content_path(digest)), digest, size)
    return staging.keep_content(files, digest, size)


def _held(data: Path) -> frozenset[str]:
    """The contents that are in the data directory."""
    if not (data / PATH).exists():
        return frozenset()
    catalog = open_read_only(data)
    try:
        return frozenset(str(digest) for (digest,) in catalog.execute("SELECT digest FROM content"))
    finally:
        catalog.close()


async def _import(
    data: Path, bundle: Bundle, staging: Staging, checks: dict[Digest, ContentHashes], reassert: bool
) -> Moved:
    clock = SystemClock()
    catalog = Catalog(SystemDisk(data), clock)
    await catalog.start()
    catalog.database.attach(Unpublished())
    undo = Undo(catalog, reassert)
    try:
        for digest, found in checks.items():
            staging.place(digest)
            row = (digest, found.size, found.per_mib(), clock.now_ms())
            await catalog.database.write(lambda tx, row=row: add_content(tx, *row))  # type: ignore[misc]
        for document in bundle.documents:
            update = staging.read(document.file)
            delta = decode_delta(update)
            await catalog.database.write(lambda tx, writers=document.writers: note_writers(tx, writers))  # type: ignore[misc]
            await undo.before(document.name, delta)
            await catalog.take_in(Incoming(document.name, update, delta, {}))
            await undo.after(document.name)
        for file in bundle.bodies.values():
            body = staging.read(file)
            await catalog.database.write_in_steps(partial(store_missing_body, body=body))
        lacking = undo.lacking()
    finally:
        await catalog.stop()
    done = moved(bundle, len(checks), [])
    return done._replace(deleted=undo.since.deleted, moved=undo.since.moved, lacking=tuple(lacking))


def _is_whole(update: bytes) -> bool:
    """Return whether an update depends on no earlier one, so that it can be applied to any state of its document."""
    try:
        return admit({}, decode_delta(update), {}) is not None
    except CrdtError:
        return False


def _hex(digest: str, body: bytes) -> str:
    return hashlib.new(algorithm_of(Digest(digest)), body).hexdigest()

"""Bundles: repositories as files, for a site without a network.

    bundle.json          what is in it, with a BLAKE3 digest of each file
    bundle.mac           the MAC of that under the cluster's key
    documents/<number>   a repository's document, as one update
    bodies/<hex>         manifests
    blobs/<algorithm>/<2 hex>/<hex>

`bundle_export` makes them and `bundle_import` takes them in. Both go on where they were broken off.
"""

from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import msgspec
from blake3 import blake3

from registry.catalog.queries import KIND
from registry.cluster.rpc.keys import ClusterKey
from registry.oci.names import Digest, algorithm_of
from registry.storage.checks import ContentHashes
from registry.storage.store import READ_BYTES

VERSION = 1
LIST = "bundle.json"
MAC = "bundle.mac"


class DocumentFile(msgspec.Struct):
    """A repository's document in a bundle."""

    name: str
    file: str
    hash: str
    writers: dict[str, str]


class Bundle(msgspec.Struct):
    """The table of contents of a bundle, `bundle.json`."""

    version: int
    documents: list[DocumentFile]
    bodies: dict[str, str]
    """Manifests: digest to file."""
    contents: dict[str, int]
    """Content: digest to size."""


class Moved(NamedTuple):
    """The result of an export or an import."""

    repositories: int
    manifests: int
    contents: int
    size_bytes: int
    new: int
    """Contents that were not in the target yet."""
    wrong: list[Digest]
    """Contents that are corrupt and were left out."""
    deleted: Sequence[str] = ()
    """Tags, and manifests without a tag, that the bundle holds and that were deleted here since."""
    moved: Sequence[str] = ()
    """Tags of the bundle that point elsewhere here."""
    lacking: Sequence[Digest] = ()
    """Contents that re-asserted manifests need and that are neither in the bundle nor here."""


def moved(bundle: Bundle, new: int, wrong: list[Digest]) -> Moved:
    repositories = sum(document.name.startswith(KIND) for document in bundle.documents)
    total = sum(bundle.contents.values())
    return Moved(repositories, len(bundle.bodies), len(bundle.contents), total, new, wrong)


def mac_of(encoded: bytes, key: ClusterKey | None) -> str:
    """Return the MAC of an encoded list. Without a cluster's key it detects accidental changes only."""
    return blake3(encoded, key=key.bundles).hexdigest() if key else blake3(encoded).hexdigest()


def is_right(file: BinaryIO | None, digest: Digest, size: int) -> bool:
    """Return whether a file has the bytes of its digest, and close it."""
    checks = _checks_of(file, digest) if file is not None else None
    return checks is not None and checks.size == size and checks.digest() == digest


def _checks_of(file: BinaryIO, digest: Digest) -> ContentHashes | None:
    """None for what cannot be read."""
    checks = ContentHashes(algorithm_of(digest))
    try:
        with file:
            while piece := file.read(READ_BYTES):
                checks.update(piece)
    except OSError:
        return None
    return checks

"""Reading manifests: what an image or an index refers to.

Bodies are kept as they came; this only reads them. Media types of layers and artifacts are never allow-listed. A body
that could be read both as an image and as an index is refused (CVE-2021-41190). The formats are those of the OCI image
specification ("manifest.md", "image-index.md") and Docker's "Image Manifest V 2, Schema 2".
"""

from typing import NamedTuple

import msgspec

from registry.errors import ManifestInvalid
from registry.names import Digest, is_digest

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGES = frozenset({OCI_IMAGE, DOCKER_IMAGE})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = IMAGES | INDEXES
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_PARTS = 10_000


class Part(NamedTuple):
    """Something a manifest refers to."""

    digest: Digest
    size: int
    required: bool
    """False for layers that are fetched from elsewhere (`urls`) and need not be in the registry."""


class Manifest(NamedTuple):
    """What a manifest's body says."""

    media_type: str
    blobs: tuple[Part, ...]
    children: tuple[Part, ...]
    subject: Digest | None
    artifact_type: str | None
    """As the referrers API shows it: an image without one has its config's media type, an index none."""
    annotations: bytes | None
    """The annotations as a JSON object."""

    def names(self) -> list[Digest]:
        """Everything it stands on: blobs and children, not its subject."""
        return list(dict.fromkeys(part.digest for part in (*self.blobs, *self.children)))


class _Descriptor(msgspec.Struct):
    digest: str
    size: int
    mediaType: str = ""
    urls: list[str] | None = None


class _Body(msgspec.Struct):
    schemaVersion: int
    mediaType: str = ""
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    artifactType: str = ""
    annotations: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(_Body)


def parse_manifest(body: bytes, content_type: str | None) -> Manifest:
    """Read a body that was pushed, or is stored, as `content_type` (without parameters; None when it was not said).

    Raises ManifestInvalid.
    """
    if content_type is not None and content_type.startswith(_SCHEMA_1):
        raise ManifestInvalid("Docker's manifest schema 1 is not supported; push the image with a current client")
    try:
        body.decode()  # the decoder looks only at the fields it knows
        content = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid("the manifest is not valid", {"reason": str(error)}) from None
    if content.schemaVersion != 2:
        raise ManifestInvalid("the manifest's schemaVersion is not 2")
    media_type = content_type or content.mediaType or (OCI_IMAGE if content.manifests is None else OCI_INDEX)
    if content.mediaType and content.mediaType != media_type:
        raise ManifestInvalid(f"the manifest says it is {content.mediaType}, the request that it is {media_type}")
    if media_type in IMAGES:
        return _image(content, media_type)
    if media_type in INDEXES:
        return _index(content, media_type)
    raise ManifestInvalid("manifests of this media type are not supported", {"mediaType": media_type[:255]})


UNREADABLE = "?"
"""Stands among the parts of a manifest that cannot be read: it may name anything."""


def read_stored(body: bytes, media_type: str) -> Manifest:
    """A body that came from elsewhere, or is stored. One that this version cannot read has an unreadable part."""
    try:
        return parse_manifest(body, media_type)
    except ManifestInvalid:
        return Manifest(media_type, (Part(Digest(UNREADABLE), 0, False),), (), None, None, None)


def _image(content: _Body, media_type: str) -> Manifest:
    if content.manifests is not None:
        raise ManifestInvalid("an image that lists manifests is ambiguous")
    if content.config is None:
        raise ManifestInvalid("the image has no config")
    parts = [content.config, *(content.layers or ())]
    artifact_type = content.artifactType or content.config.mediaType or None
    return _manifest(content, media_type, tuple(map(_part, parts)), (), artifact_type)


def _index(content: _Body, media_type: str) -> Manifest:
    if content.layers is not None or content.config is not None:
        raise ManifestInvalid("an index that lists layers is ambiguous")
    if content.manifests is None:
        raise ManifestInvalid("the index lists no manifests")
    is_child = [not entry.mediaType or entry.mediaType in MANIFESTS for entry in content.manifests]
    parts = [_part(entry) for entry in content.manifests]
    children = tuple(part for part, child in zip(parts, is_child, strict=True) if child)
    blobs = tuple(part for part, child in zip(parts, is_child, strict=True) if not child)
    return _manifest(content, media_type, blobs, children, content.artifactType or None)


def _manifest(
    content: _Body,
    media_type: str,
    blobs: tuple[Part, ...],
    children: tuple[Part, ...],
    artifact_type: str | None,
) -> Manifest:
    if len(blobs) + len(children) > MAX_PARTS:
        raise ManifestInvalid(f"the manifest refers to more than {MAX_PARTS} parts")
    subject = _part(content.subject).digest if content.subject else None
    annotations = msgspec.json.encode(content.annotations) if content.annotations else None
    return Manifest(media_type, blobs, children, subject, artifact_type, annotations)


def _part(descriptor: _Descriptor) -> Part:
    if not is_digest(descriptor.digest):
        raise ManifestInvalid("the manifest has a malformed digest", {"digest": descriptor.digest[:200]})
    if not 0 <= descriptor.size < 2**63:
        raise ManifestInvalid("the manifest has an impossible size", {"digest": descriptor.digest})
    return Part(Digest(descriptor.digest), descriptor.size, not descriptor.urls)

"""Reading manifests: what an image or an index refers to.

Bodies are kept unchanged; this only reads them. Media types of layers and artifacts are never allow-listed. A body
that could be read both as an image and as an index is refused (CVE-2021-41190), and so is one with keys that readers
take differently (`json_objects`).

The formats are those of the OCI image specification ("manifest.md", "image-index.md") and Docker's "Image Manifest V 2,
Schema 2".
"""

from typing import NamedTuple

import msgspec

from crdt.fact import BLOB, MANIFEST
from registry.errors import ManifestInvalid
from registry.event_loop.steps import ROWS_PER_STEP, Steps, convert_in_steps, run_to_completion
from registry.oci.json_objects import KnownKeys, elements_of
from registry.oci.names import Digest, is_digest
from registry.units import KIB, MIB

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGES = frozenset({OCI_IMAGE, DOCKER_IMAGE})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = IMAGES | INDEXES
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"

MAX_MANIFEST_BYTES = 4 * MIB
MAX_PARTS = 10_000
LARGE_BYTES = 256 * KIB
"""A body from this size on is read in several steps: each pass over 4 MiB takes up to 20 ms."""
_NON_DISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)

_BODY_KEYS = KnownKeys(
    ("schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "artifactType", "annotations")
)
_DESCRIPTOR_KEYS = KnownKeys(("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"))
_PLATFORM_KEYS = KnownKeys(("architecture", "os", "os.version", "os.features", "variant", "features"))


class Descriptor(NamedTuple):
    """The content descriptor of what a manifest refers to (OCI image specification, "Content Descriptors")."""

    digest: Digest
    size: int
    required: bool
    """False for layers of a non-distributable media type: they may be absent, whether or not they have `urls`."""


class PartRow(NamedTuple):
    """A part as the catalog keeps it."""

    kind: str
    """BLOB or MANIFEST, the kinds of the facts that link them."""
    digest: Digest
    required: bool


class Manifest(NamedTuple):
    """The content of a manifest body."""

    media_type: str
    blobs: tuple[Descriptor, ...]
    children: tuple[Descriptor, ...]
    subject: Digest | None
    artifact_type: str | None
    """As the referrers API shows it: an image without one has its config's media type, an index none."""
    annotations: bytes | None
    """The annotations as a JSON object."""

    def names(self) -> list[Digest]:
        """Return the digests that it depends on: blobs and children, not its subject."""
        return list(dict.fromkeys(part.digest for part in (*self.blobs, *self.children)))

    def parts(self) -> list[PartRow]:
        """Return what it depends on, each role of each digest once."""
        rows: dict[tuple[str, Digest], bool] = {}
        for kind, parts in ((BLOB, self.blobs), (MANIFEST, self.children)):
            for digest, _, required in parts:
                rows[kind, digest] = required or rows.get((kind, digest), False)
        return [PartRow(kind, digest, required) for (kind, digest), required in rows.items()]


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
    """Read a body in one piece, see `read_pushed`."""
    return run_to_completion(read_pushed(body, content_type))


def read_pushed(body: bytes, content_type: str | None) -> Steps[Manifest]:
    """Read a body that was pushed as `content_type` (without parameters; None where the header is missing), in bounded
    steps.

    Raises ManifestInvalid.
    """
    if content_type is not None and content_type.startswith(_SCHEMA_1):
        raise ManifestInvalid("Docker's manifest schema 1 is not supported; push the image with a current client")
    try:
        body.decode()  # the decoder looks only at the fields it knows
        content = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid("the manifest is not valid", {"cause": str(error)}) from None
    if len(body) >= LARGE_BYTES:
        yield
    yield from _check_keys(body)
    if content.schemaVersion != 2:
        raise ManifestInvalid("the manifest's schemaVersion is not 2")
    media_type = content_type or content.mediaType or (OCI_IMAGE if content.manifests is None else OCI_INDEX)
    if content.mediaType and content.mediaType != media_type:
        raise ManifestInvalid(f"the manifest says it is {content.mediaType}, the request that it is {media_type}")
    if media_type in IMAGES:
        return (yield from _image(content, media_type))
    if media_type in INDEXES:
        return (yield from _index(content, media_type))
    raise ManifestInvalid("manifests of this media type are not supported", {"mediaType": media_type[:255]})


def _check_keys(body: bytes) -> Steps[None]:
    """Raise AmbiguousKeys where readers would take a key differently. The body has been decoded, so it is valid JSON
    of the right shape."""
    members = _BODY_KEYS.members_of("the manifest", body)
    if len(body) >= LARGE_BYTES:
        yield
    for name in ("config", "subject"):
        _check_descriptor(name, members.get(name, b"null"))
    for name in ("layers", "manifests"):
        if members.get(name, b"null") != b"null":
            for number, descriptor in enumerate(elements_of(members[name])):
                _check_descriptor(f"{name}[{number}]", descriptor)
                if number % ROWS_PER_STEP == ROWS_PER_STEP - 1:
                    yield


def _check_descriptor(place: str, descriptor: bytes) -> None:
    if descriptor != b"null":
        platform = _DESCRIPTOR_KEYS.members_of(place, descriptor).get("platform", b"")
        if platform.startswith(b"{"):
            _PLATFORM_KEYS.members_of(f"{place}.platform", platform)


def _image(content: _Body, media_type: str) -> Steps[Manifest]:
    if content.manifests is not None:
        raise ManifestInvalid("an image that lists manifests is ambiguous")
    if content.config is None:
        raise ManifestInvalid("the image has no config")
    layers = content.layers or []
    _check_count(len(layers) + 1)
    blobs = [_descriptor(content.config), *(yield from convert_in_steps(_layer, layers))]
    return _manifest(content, media_type, blobs, [], content.artifactType or content.config.mediaType or None)


def _index(content: _Body, media_type: str) -> Steps[Manifest]:
    if content.layers is not None or content.config is not None:
        raise ManifestInvalid("an index that lists layers is ambiguous")
    if content.manifests is None:
        raise ManifestInvalid("the index lists no manifests")
    _check_count(len(content.manifests))
    parts = yield from convert_in_steps(_descriptor, content.manifests)
    is_child = [not entry.mediaType or entry.mediaType in MANIFESTS for entry in content.manifests]
    children = [part for part, child in zip(parts, is_child, strict=True) if child]
    blobs = [part for part, child in zip(parts, is_child, strict=True) if not child]
    return _manifest(content, media_type, blobs, children, content.artifactType or None)


def _check_count(count: int) -> None:
    if count > MAX_PARTS:
        raise ManifestInvalid(f"the manifest refers to more than {MAX_PARTS} parts")


def _manifest(
    content: _Body, media_type: str, blobs: list[Descriptor], children: list[Descriptor], artifact_type: str | None
) -> Manifest:
    subject = _descriptor(content.subject).digest if content.subject else None
    annotations = msgspec.json.encode(content.annotations) if content.annotations else None
    return Manifest(media_type, tuple(blobs), tuple(children), subject, artifact_type, annotations)


def _descriptor(descriptor: _Descriptor) -> Descriptor:
    if not is_digest(descriptor.digest):
        raise ManifestInvalid("the manifest has a malformed digest", {"digest": descriptor.digest[:200]})
    if not 0 <= descriptor.size < 2**63:
        raise ManifestInvalid("the manifest has a descriptor with an invalid size", {"digest": descriptor.digest})
    return Descriptor(Digest(descriptor.digest), descriptor.size, True)


def _layer(descriptor: _Descriptor) -> Descriptor:
    return _descriptor(descriptor)._replace(required=not descriptor.mediaType.startswith(_NON_DISTRIBUTABLE))

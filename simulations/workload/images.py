"""The images that clients push: few images, two indexes of them, and an artifact about one, so that everything is
shared."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import NamedTuple

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
IMAGES = 5


class Image(NamedTuple):
    """A manifest and the blobs it stands on."""

    body: bytes
    media_type: str
    blobs: tuple[bytes, ...] = ()
    children: "tuple[Image, ...]" = ()


class Parts(NamedTuple):
    """The digests of what a manifest names."""

    blobs: tuple[str, ...]
    children: tuple[str, ...]
    subject: str | None


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _described(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _image(number: int) -> Image:
    rng = random.Random(number)
    config = json.dumps({"os": "linux", "number": number}).encode()
    layers = [rng.randbytes(60), b"a layer that images share" if number % 2 else rng.randbytes(700)]
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": _described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_described(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
    }
    return Image(json.dumps(body).encode(), OCI_IMAGE, (config, *layers))


def _index(children: Sequence[Image]) -> Image:
    manifests = [_described(child.body, child.media_type) for child in children]
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return Image(json.dumps(body).encode(), OCI_INDEX, (), tuple(children))


def _artifact(subject: Image) -> Image:
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "artifactType": "application/sbom",
        "config": _described(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [_described(b"an sbom", "application/sbom")],
        "subject": _described(subject.body, subject.media_type),
    }
    return Image(json.dumps(body).encode(), OCI_IMAGE, (b"{}", b"an sbom"))


def _bare(number: int) -> Image:
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"number": str(number)}}
    return Image(json.dumps(body).encode(), OCI_INDEX)


ALL_IMAGES = [_image(number) for number in range(IMAGES)]
ALL_INDEXES = [_index(ALL_IMAGES[:2]), _index(ALL_IMAGES[1:4])]
ALL_ARTIFACTS = [_artifact(ALL_IMAGES[0])]
BARE = [_bare(number) for number in range(8)]
"""Manifests that stand on nothing, so that a push of one is one request."""


def _parts(image: Image) -> Parts:
    subject = json.loads(image.body).get("subject", {}).get("digest")
    return Parts(tuple(map(digest_of, image.blobs)), tuple(digest_of(one.body) for one in image.children), subject)


PARTS = {digest_of(image.body): _parts(image) for image in (*ALL_IMAGES, *ALL_INDEXES, *ALL_ARTIFACTS, *BARE)}
"""By the digests of all manifests that are ever pushed."""


def all_blobs(digest: str) -> set[str]:
    """The digests of the blobs that a manifest stands on, at all levels."""
    parts = PARTS[digest]
    return set(parts.blobs).union(*(all_blobs(child) for child in parts.children))

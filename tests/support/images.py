"""Images, indexes and artifacts made in memory."""

import hashlib
import json
import random
from typing import Any, NamedTuple

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


class Image(NamedTuple):
    """A manifest or index with everything it stands on."""

    body: bytes
    media_type: str
    blobs: tuple[bytes, ...] = ()
    children: tuple["Image", ...] = ()

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body), **more}


def descriptor(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(content), **more}


def image(
    seed: object = 0,
    layers: int = 2,
    layer_bytes: int = 1000,
    media_type: str = OCI_IMAGE,
    layer_type: str = OCI_LAYER,
    **fields: Any,
) -> Image:
    """An image whose content depends on `seed` alone."""
    drawn = random.Random(str(seed))
    return of_layers([drawn.randbytes(layer_bytes) for _ in range(layers)], seed, media_type, layer_type, **fields)


def of_layers(
    contents: list[bytes], seed: object, media_type: str = OCI_IMAGE, layer_type: str = OCI_LAYER, **fields: Any
) -> Image:
    """An image of given layers."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "seed": str(seed)}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(content, layer_type) for content in contents],
        **fields,
    }
    return Image(json.dumps(manifest).encode(), media_type, (config, *contents))


def unpackable(tars: list[bytes]) -> Image:
    """An image of uncompressed layers whose config names them, so that clients unpack it."""
    layers = [descriptor(tar, OCI_LAYER) for tar in tars]
    diff_ids = [layer["digest"] for layer in layers]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    manifest = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor(config, OCI_CONFIG), "layers": layers}
    return Image(json.dumps(manifest).encode(), OCI_IMAGE, (config, *tars))


def index(*children: Image, media_type: str = OCI_INDEX, **fields: Any) -> Image:
    """An index of images."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [
            child.descriptor(platform={"os": "linux", "architecture": f"arch{number}"})
            for number, child in enumerate(children)
        ],
        **fields,
    }
    return Image(json.dumps(manifest).encode(), media_type, (), children)


def artifact(content: bytes, artifact_type: str, subject: Image | None = None, **fields: Any) -> Image:
    """An artifact, as ORAS makes it, perhaps about a subject."""
    empty = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "artifactType": artifact_type,
        "config": descriptor(empty, "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(content, artifact_type)],
        **({"subject": subject.descriptor()} if subject else {}),
        **fields,
    }
    return Image(json.dumps(manifest).encode(), OCI_IMAGE, (empty, content))

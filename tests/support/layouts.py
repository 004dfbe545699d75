"""Images as OCI layouts on disk (OCI image specification, "image-layout.md")."""

import hashlib
import json
from pathlib import Path

from tests.support.images import OCI_INDEX, Image


def write_layout(directory: Path, image: Image, name: str = "app") -> Path:
    """Write an image, and all it stands on, as a layout. Return the directory."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def write(one: Image) -> None:
        for content in (one.body, *one.blobs):
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        for child in one.children:
            write(child)

    write(image)
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    entry = image.descriptor(annotations={"org.opencontainers.image.ref.name": name})
    (directory / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    )
    return directory

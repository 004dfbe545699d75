"""Whole images: what a push and a pull of one costs, several at a time.

An image has new layers, a config and a manifest, and is pushed in 14 requests when it has five layers: HEAD of the
tag, POST and PUT of each blob, PUT of the manifest. Its bytes are made so that they cost the client next to nothing:
all layers of one size share their beginning, whose hash is computed once, and differ in their last 16 bytes.
"""

import functools
import hashlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.connection import Connection

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
AT_A_TIME = 4
TAIL_BYTES = 16


class Shape(NamedTuple):
    """The layers of an image."""

    layers: int
    layer_bytes: int


class Image(NamedTuple):
    """An image in some repository of a registry."""

    repository: str
    tag: str
    digests: tuple[str, ...]


@functools.cache
def _beginning(size: int) -> "tuple[bytes, hashlib._Hash]":
    content = os.urandom(size - TAIL_BYTES)
    return content, hashlib.sha256(content)


def _blob(size: int) -> tuple[str, tuple[bytes, bytes]]:
    """Return the digest and the two pieces of a blob that no registry has."""
    beginning, state = _beginning(size)
    tail, whole = os.urandom(TAIL_BYTES), state.copy()
    whole.update(tail)
    return f"sha256:{whole.hexdigest()}", (beginning, tail)


def push_image(connection: Connection, repository: str, tag: str, shape: Shape) -> Image:
    """Push a new image. Raise ValueError when the registry refuses any part of it."""
    manifests = f"/v2/{repository}/manifests/{tag}"
    connection.request("HEAD", manifests, Accept=MANIFEST_TYPE)
    descriptors, digests = [], list[str]()
    for size in (*[shape.layer_bytes] * shape.layers, 1024):
        digest, pieces = _blob(size)
        begun = connection.request("POST", f"/v2/{repository}/blobs/uploads/")
        location = begun.headers["location"].removeprefix("http://")
        path = location[location.index("/") :]
        mark = "&" if "?" in path else "?"
        fields = {"Content_Type": "application/octet-stream"}
        _expect(201, connection.request("PUT", f"{path}{mark}digest={digest}", pieces, **fields).status)
        digests.append(digest)
        descriptors.append({"mediaType": LAYER_TYPE, "digest": digest, "size": size})
    *layers, config = descriptors
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config | {"mediaType": CONFIG_TYPE}}
    body = json.dumps(manifest | {"layers": layers}).encode()
    _expect(201, connection.request("PUT", manifests, [body], Content_Type=MANIFEST_TYPE).status)
    return Image(repository, tag, tuple(digests))


def pull_image(connection: Connection, image: Image) -> None:
    """Read the manifest and all blobs of an image. Raise ValueError when one of them is not served."""
    manifest = connection.request("GET", f"/v2/{image.repository}/manifests/{image.tag}", Accept=MANIFEST_TYPE)
    _expect(200, manifest.status)
    for digest in image.digests:
        _expect(200, connection.request("GET", f"/v2/{image.repository}/blobs/{digest}").status)


def _expect(status: int, answered: int) -> None:
    if answered != status:
        raise ValueError(f"expected {status}, the registry answered {answered}")


def images_a_second(address: str, seconds: float, step: Callable[[Connection, int], object]) -> float:
    """Return how many steps a second four clients take, each with a connection of its own. A step gets a number that no
    other step has."""
    numbers, finished, faults = itertools.count(), itertools.count(), list[BaseException]()
    end = time.monotonic() + seconds

    def client() -> None:
        try:
            with Connection(address) as connection:
                while time.monotonic() < end:
                    step(connection, next(numbers))
                    next(finished)
        except BaseException as fault:
            faults.append(fault)

    clients = [threading.Thread(target=client) for _ in range(AT_A_TIME)]
    begun = time.monotonic()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    if faults:
        raise faults[0]
    return next(finished) / (time.monotonic() - begun)

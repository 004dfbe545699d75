"""Caches that BuildKit exports to a registry (`--cache-to type=registry`), in both of its formats, kept by collection.

An index's entries are blobs then, not manifests: collection has to know them as such (BuildKit, `cache/remotecache`).
"""

import json

import pytest

from tests.scenarios.test_collection import collect
from tests.scenarios.test_copies import holders
from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_cluster

NOW = {"copies": "2", "acknowledge": "2", "gc_grace_s": "0", "gc_interval_s": "0"}
CONFIG = "application/vnd.buildkit.cacheconfig.v0"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def cache(as_image: bool, *layers: bytes) -> images.Image:
    """An exported cache: an index of blobs, or an image (`image-manifest=true`), of layers and what led to them."""
    records = [{"digest": sha256(b"step" + layer), "layers": [{"layer": at}]} for at, layer in enumerate(layers)]
    config = json.dumps({"layers": [{"blob": sha256(layer)} for layer in layers], "records": records}).encode()
    annotations = {"buildkit/createdat": "2026-01-01T00:00:00Z", "containerd.io/uncompressed": sha256(b"tar")}
    entries = [images.descriptor(layer, LAYER, annotations=annotations) for layer in layers]
    last = images.descriptor(config, CONFIG)
    manifest = {"schemaVersion": 2, "mediaType": images.OCI_IMAGE if as_image else images.OCI_INDEX}
    manifest |= {"config": last, "layers": entries} if as_image else {"manifests": [*entries, last]}
    return images.Image(json.dumps(manifest).encode(), str(manifest["mediaType"]), (*layers, config))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("caches"), ["eu", "us"], **NOW) as cluster:
        yield cluster


def collect_everywhere(pair, **question):
    pair.wait_agreed()
    for server in pair.servers:
        collect(server, **question)
    pair.wait_agreed()


@pytest.mark.parametrize("as_image", [False, True], ids=["index", "image"])
def test_cache_that_a_later_build_replaced_is_collected_but_for_the_layers_they_share(as_image, pair, repository):
    eu, us = pair.servers
    shared, first, second = (f"{name} {repository}".encode() * 100 for name in ("shared", "first", "second"))
    old, new = cache(as_image, shared, first), cache(as_image, shared, second)
    eu.client.push(repository, "cache", old)
    collect_everywhere(pair, untagged_older_than_s=0)
    assert all(holders(pair, sha256(blob)) == [eu, us] for blob in old.blobs)
    us.client.push(repository, "cache", new)
    collect_everywhere(pair, untagged_older_than_s=0)
    assert all(holders(pair, sha256(blob)) == [eu, us] for blob in new.blobs)
    gone = {sha256(blob) for blob in old.blobs} - {sha256(shared)}
    assert not any(holders(pair, digest) for digest in gone)
    for server in pair.servers:
        assert server.client.get(f"/v2/{repository}/manifests/{old.digest}").status == 404
        assert server.client.get(f"/v2/{repository}/manifests/cache").body == new.body
        for blob in new.blobs:
            assert server.client.get(f"/v2/{repository}/blobs/{sha256(blob)}").body == blob


@pytest.mark.parametrize("as_image", [False, True], ids=["index", "image"])
def test_cache_that_was_deleted_is_collected(as_image, pair, repository):
    eu, us = pair.servers
    deleted = cache(as_image, f"deleted {repository}".encode() * 100)
    eu.client.push(repository, "cache", deleted)
    collect_everywhere(pair)
    assert all(holders(pair, sha256(blob)) == [eu, us] for blob in deleted.blobs)
    assert us.client.delete(f"/v2/{repository}/manifests/{deleted.digest}").status == 202
    collect_everywhere(pair)
    assert not any(holders(pair, sha256(blob)) for blob in deleted.blobs)

"""Foreign layers, which may be absent, where every site has to hold a push before it is answered."""

import json

import pytest

from tests.scenarios.test_collection import collect
from tests.scenarios.test_copies import holders
from tests.support import images
from tests.support.client import sha256
from tests.support.engines import run
from tests.support.server import running_cluster

FOREIGN_LAYERS = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
]
ABSENT, PRESENT = b"a base layer that its vendor alone may serve", b"a base layer that was pushed nevertheless"
SETTINGS = {"copies": "eu=1,us=1", "acknowledge": "each-site", "acknowledge_timeout_s": "2"}
NOW = {"gc_grace_s": "0", "gc_interval_s": "0"}


def with_foreign_layers(media_type: str, *contents: bytes) -> images.Image:
    """An image of a layer of its own upon foreign layers, in Docker's format or OCI's."""
    docker = "docker" in media_type
    manifest_type = images.DOCKER_IMAGE if docker else images.OCI_IMAGE
    layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else images.OCI_LAYER
    image = images.image(media_type, 1, media_type=manifest_type, layer_type=layer_type)
    manifest = json.loads(image.body)
    if docker:
        manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    manifest["layers"][:0] = [images.descriptor(one, media_type, urls=["http://127.0.0.1:9/layer"]) for one in contents]
    return image._replace(body=json.dumps(manifest).encode())


@pytest.fixture(scope="module")
def each_site(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("each"), ["eu", "us"], **SETTINGS, **NOW) as cluster:
        yield cluster


@pytest.mark.parametrize("media_type", FOREIGN_LAYERS, ids=["docker", "oci"])
def test_push_with_an_absent_foreign_layer_is_answered_when_each_site_has_the_others(media_type, each_site, repository):
    eu, us = each_site.servers
    image = with_foreign_layers(media_type, ABSENT)
    assert eu.client.push(repository, "v1", image) == image.digest
    assert all(holders(each_site, sha256(blob)) == [eu, us] for blob in image.blobs)
    each_site.wait_agreed()
    assert us.client.pull(repository, "v1") == image.body
    absent = us.client.get(f"/v2/{repository}/blobs/{sha256(ABSENT)}")
    assert (absent.status, absent.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("media_type", FOREIGN_LAYERS, ids=["docker", "oci"])
def test_foreign_layer_that_was_pushed_is_served_at_each_site_and_collected_with_its_image(
    media_type, each_site, repository
):
    eu, us = each_site.servers
    content = PRESENT + media_type.encode()
    digest = sha256(content)
    path = f"/v2/{repository}/blobs/{digest}"
    image = with_foreign_layers(media_type, ABSENT, content)
    eu.client.push_blob(repository, content)
    eu.client.push(repository, "v1", image)
    each_site.wait_agreed()
    collect(us)
    assert us.client.get(path).body == eu.client.get(path).body == content
    assert us.client.delete(f"/v2/{repository}/manifests/{image.digest}").status == 202
    each_site.wait_agreed()
    for server in (eu, us):
        collect(server)
    assert not holders(each_site, digest)
    assert eu.client.head(path).status == 404


def test_skopeo_copies_an_image_with_a_foreign_layer_it_never_fetches(skopeo, each_site, repository):
    eu, us = each_site.servers
    image = with_foreign_layers(FOREIGN_LAYERS[0], ABSENT)
    eu.client.push(repository, "v1", image)
    each_site.wait_agreed()
    insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    source, target = f"docker://{us.address}/{repository}:v1", f"docker://{us.address}/{repository}-copy:v1"
    run(["skopeo", "copy", "--quiet", "--preserve-digests", *insecure, source, target])
    each_site.wait_agreed()
    assert eu.client.pull(f"{repository}-copy", "v1") == image.body


def test_push_with_a_foreign_layer_fails_when_a_site_is_gone(tmp_path):
    """That a layer may be absent does not make the others count less."""
    with running_cluster(tmp_path, ["eu", "us"], **SETTINGS) as cluster:
        eu, us = cluster.servers
        us.kill()
        image = with_foreign_layers(FOREIGN_LAYERS[0], ABSENT)
        for blob in image.blobs:
            eu.client.push_blob("app", blob)
        answer = eu.client.put_manifest("app", "v1", image.body, image.media_type)
        assert answer.status == 503
        detail = answer.json()["errors"][0]["detail"]
        assert (detail["acknowledged"], detail["required"], detail["sites_without"]) == (1, 2, "us")

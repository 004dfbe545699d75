"""docs/nginx.conf and the ingress of k8s/base, in a real nginx: each path goes where its rules are, whatever a
repository is called. Names may consist of the words that paths are made of (OCI distribution specification, "Pulling
manifests"), and a layer that is taken for a manifest is limited, buffered and repeated."""

import http.client
import itertools
import socket

import pytest

from registry.http.routes import parse_path
from registry.names import parse_repository
from tests.support import images, nginx
from tests.support.client import sha256
from tests.support.server import running_server, wait_until

SHIPPED = ["nginx.conf", "ingress.yaml"]
WORDS = ["app", "blobs", "list", "manifests", "referrers", "tags", "uploads", "v2"]
NAMES = ["app", "manifests", "org/manifests/app", "org/manifests", "blobs/uploads", "tags/list", "uploads/manifests"]
DIGESTS = ["sha256:" + 64 * "a", "sha512:" + 128 * "b", "sha256%3A" + 64 * "c"]
LAYER = bytes(range(256)) * 24_000  # more than any manifest may have, and than nginx takes of one


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("instance") / "data") as server:
        yield server


@pytest.fixture(scope="module", params=SHIPPED)
def balancer(request, instance, tmp_path_factory):
    directory = tmp_path_factory.mktemp("nginx")
    if request.param == "nginx.conf":
        server = nginx.for_clients(directory, [instance.address])
    else:
        server = nginx.for_ingress(directory, instance.address)
    with server:
        yield server.wait_listening()


def every_path():
    """Every kind of path, of names of one to three words."""
    for length in (1, 2, 3):
        for words in itertools.product(WORDS, repeat=length):
            name = parse_repository("/".join(words))
            yield f"/v2/{name}/tags/list"
            yield f"/v2/{name}/blobs/uploads/"
            yield f"/v2/{name}/blobs/uploads/{40 * 'A'}.b{32 * '0'}"
            yield f"/v2/{name}/blobs/{DIGESTS[0]}"
            yield f"/v2/{name}/referrers/{DIGESTS[0]}"
            for reference in [words[0], "v1.0_x-Y", *DIGESTS]:
                yield f"/v2/{name}/manifests/{reference}"


@pytest.mark.parametrize("shipped", SHIPPED)
def test_each_path_is_taken_by_the_location_of_its_kind(shipped, tmp_path):
    with nginx.naming_locations(tmp_path / "nginx", shipped) as server:
        server.wait_listening()
        connection = http.client.HTTPConnection(server.client.host, server.client.port, timeout=10)
        taken: dict[str, set[str]] = {}
        for path in every_path():
            connection.request("GET", path)
            taken.setdefault(parse_path(path).resource, set()).add(connection.getresponse().read().decode())
        connection.close()
    [manifests], [uploads] = taken.pop("manifest"), taken.pop("uploads")
    assert "/manifests/" in manifests and "/blobs/uploads/" in uploads
    assert taken.keys() == {"tags", "upload", "blob", "referrers"}
    assert all(locations == {"/v2/"} for locations in taken.values()), taken


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_any_size_and_manifests_pass_whatever_a_repository_is_called(balancer, name):
    client = balancer.client
    client.push_blob(name, LAYER)
    assert client.get(f"/v2/{name}/blobs/{sha256(LAYER)}").body == LAYER
    image = images.image(name)
    for tag in ("manifests", "uploads"):
        client.push(name, tag, image)
        assert client.pull(name, tag) == image.body
    assert client.tags(name) == ["manifests", "uploads"]
    assert client.get(f"/v2/{name}/referrers/{image.digest}").status == 200
    assert client.delete(f"/v2/{name}/manifests/uploads").status == 202
    assert client.tags(name) == ["manifests"]


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_streams_to_the_instance_and_a_manifest_comes_whole(balancer, instance, name):
    """A balancer that keeps a layer needs memory or disk for all of it, and its client sees nothing move."""
    path = balancer.client.begin_upload(name)
    before = instance.upload_bytes()
    with socket.create_connection((balancer.client.host, balancer.client.port)) as connection:
        connection.sendall(f"PATCH {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LAYER)}\r\n\r\n".encode())
        connection.sendall(LAYER[: len(LAYER) // 2])
        wait_until(lambda: instance.upload_bytes() > before)
    large = balancer.client.put_manifest(name, "large", b" " * (5 * 1024 * 1024 + 1), images.OCI_IMAGE)
    assert large.status == 413

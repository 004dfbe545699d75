"""docs/nginx.conf and the ingress of k8s/base, in a real nginx: each path goes where its rules are, whatever a
repository is called. Names may consist of the words that paths are made of (OCI distribution specification, "Pulling
manifests"), and a layer that is taken for a manifest is limited, buffered and repeated."""

import contextlib
import http.client
import http.server
import itertools
import json
import socket
import threading
from collections import Counter

import pytest

from registry.http.oci.paths import parse_path
from registry.oci.names import parse_repository
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


class Stub(http.server.BaseHTTPRequestHandler):
    """An instance that serves every pull, and answers every push with the status that its server says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(200)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.pushes[self.path] += 1
        self._answer(self.server.push_status)

    do_PUT = do_POST

    def _answer(self, status):
        body = json.dumps({"errors": [{"code": "DENIED", "message": "the disk is full"}]} if status == 503 else {})
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def stubs():
    """Three instances whose disks are full."""
    with contextlib.ExitStack() as stack:
        servers = []
        for _ in range(3):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
            server.daemon_threads, server.push_status, server.pushes = True, 503, Counter()
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            servers.append(server)
        yield servers


@pytest.fixture
def balanced_stubs(stubs, tmp_path):
    addresses = [f"127.0.0.1:{server.server_address[1]}" for server in stubs]
    with nginx.for_clients(tmp_path / "nginx", addresses) as server:
        yield server.wait_listening()


PUSHES = [("POST", "/v2/app/blobs/uploads/", None), ("PUT", "/v2/app/manifests/v1", b"{}")]
PULLS = ["/v2/", "/v2/app/tags/list", f"/v2/app/blobs/{DIGESTS[0]}", "/v2/app/manifests/v1"]


@pytest.mark.parametrize(("method", "path", "body"), PUSHES)
def test_pulls_pass_while_all_instances_refuse_pushes(balanced_stubs, stubs, method, path, body):
    """A refusal says nothing about the instance's health: were it counted as a failure, one push would put every
    instance out of use for all clients."""
    pulled: Counter[int] = Counter()
    refused: Counter[tuple[int, bool]] = Counter()
    for _ in range(10):
        answer = balanced_stubs.client.request(method, path, body)
        refused[answer.status, b"the disk is full" in answer.body] += 1
        pulled.update(balanced_stubs.client.get(pull).status for pull in PULLS for _ in range(2))
    assert pulled == {200: 10 * 2 * len(PULLS)}
    assert refused == {(503, True): 10}, "the client is told the reason"
    assert [server.pushes[path] for server in stubs] == [10] * 3, "every instance is tried, once"


@pytest.mark.parametrize(("method", "path", "body"), PUSHES)
def test_a_push_that_one_instance_refuses_goes_on_to_another(balanced_stubs, stubs, method, path, body):
    for server in stubs[1:]:
        server.push_status = 201
    for _ in range(12):
        assert balanced_stubs.client.request(method, path, body).status == 201
    assert stubs[0].pushes[path] > 1, "it is asked again"

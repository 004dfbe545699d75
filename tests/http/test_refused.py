"""Requests that the server refuses before the application sees them: each refusal is the answer to its own request, in
order, and reaches clients that send the whole request before they read."""

import contextlib
import socket
import time

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_server, wait_until

pytestmark = pytest.mark.slow

IMAGE = images.image("refused", layers=1, layer_bytes=200_000)
MANIFEST = b"GET /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
LAYER = f"GET /v2/app/blobs/{sha256(IMAGE.blobs[1])} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
BASE = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 1024 * 1024
WAYS = [("1.1", False), ("1.1", True), ("1.0", False)]
"""Versions that a connection may end with, and whether the body is chunked."""


@pytest.fixture(params=["1", "2"], ids=["one process", "with a worker"], scope="module")
def server(request, tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("refused") / "data", workers=request.param) as running:
        running.client.push("app", "v1", IMAGE)
        yield running


@contextlib.contextmanager
def connected(server, timeout_s=10):
    with socket.create_connection((server.host, server.port), timeout=timeout_s) as connection:
        yield connection


def answers(connection):
    """Statuses and bodies, until the connection ends."""
    reader, found = connection.makefile("rb"), []
    with contextlib.suppress(ConnectionError):
        while line := reader.readline():
            length = 0
            while (header := reader.readline()) != b"\r\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            found.append((int(line.split()[1]), reader.read(length)))
    return found


def statuses(connection):
    return [status for status, _ in answers(connection)]


HOSTS = {
    "none": ("", 400),
    "two": ("Host: x\r\nHost: x\r\n", 400),
    "two that differ": ("Host: x\r\nHost: y\r\n", 400),
    "empty": ("Host:\r\n", 400),
    "joined": ("Host: x, y\r\n", 400),
    "with a path": ("Host: x/y\r\n", 400),
    "with a user": ("Host: a@x\r\n", 400),
    "with a space": ("Host: x y\r\n", 400),
    "with a port that is none": ("Host: x:y\r\n", 400),
    "valid": ("Host: x:5000\r\n", 200),
}
TARGETS = {
    "the base": "/v2/",
    "fast path": "/v2/app/manifests/v1",
    "streamed": f"/v2/app/blobs/{sha256(IMAGE.blobs[1])}",
    "slow path": "/v2/app/tags/list",
    "internal": "/healthz",
    "a whole URL": "http://x/v2/",
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("host", "status"), HOSTS.values(), ids=HOSTS)
def test_exactly_one_valid_host_is_needed_on_each_path(server, target, host, status):
    for _ in range(3):
        for method in ("GET", "HEAD"):
            with connected(server) as connection:
                connection.sendall(f"{method} {target} HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode())
                received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(f"HTTP/1.1 {status} ".encode())
            assert method == "GET" or not body
            assert status == 200 or b"date: " in head.lower()


def test_http_1_0_needs_no_host_and_takes_no_two(server):
    for host, status in (("", 200), ("Host: x\r\n", 200), ("Host: x\r\nHost: x\r\n", 400), ("Host: x y\r\n", 400)):
        with connected(server) as connection:
            connection.sendall(f"GET /v2/app/manifests/v1 HTTP/1.0\r\n{host}\r\n".encode())
            assert statuses(connection) == [status]


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9"])
def test_another_version_of_http_is_505(server, version):
    with connected(server) as connection:
        connection.sendall(f"GET /v2/ {version}\r\nHost: x\r\n\r\n".encode())
        assert statuses(connection) == [505]


NONSENSE = {
    "no HTTP": (b"NONSENSE\r\n\r\n", 400),
    "no Host": (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),
    "a wrong framing": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "another version": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "too large": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * MIB, 431),
}


def push(server, content, chunked):
    path = f"/v2/app/blobs/uploads/?digest={sha256(content)}"
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if chunked else content
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode(), body


@pytest.mark.parametrize(("nonsense", "status"), NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("before", ["a push", "a chunked push", "downloads"])
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "body apart"])
def test_what_is_refused_is_answered_behind_what_was_sent_before(server, nonsense, status, before, cut):
    """A 400 was read as the answer to a push that was carried out."""
    content = f"{status}{before}{cut}{server.url}".encode() + nonsense[:200]
    head, body = push(server, content, before == "a chunked push")
    expected = [201]
    if before == "downloads":
        head, body, expected = LAYER, MANIFEST + LAYER, [200, 200, 200]
    with connected(server) as connection:
        if cut:
            connection.sendall(head)
            time.sleep(0.05)
            connection.sendall(body + nonsense)
        else:
            connection.sendall(head + body + nonsense)
        assert statuses(connection) == [*expected, status]
    if before != "downloads":
        assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


@contextlib.contextmanager
def waiting_for_copies(tmp_path, **constants):
    """A server, and a chunked push of a manifest that waits for another instance to hold it, in vain."""
    settings = {"copies": "2", "acknowledge": "2", "acknowledge_timeout_s": "2"}
    with running_server(tmp_path / "data", clustered=True, constants=constants, **settings) as server:
        body = b'{"schemaVersion": 2, "manifests": []}'
        path, media_type = f"/v2/app/manifests/{sha256(body)}", images.OCI_INDEX
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        with connected(server, 30) as connection:
            connection.sendall(head.encode() + b"%x\r\n%b\r\n" % (len(body), body))
            time.sleep(0.1)
            yield connection


def test_a_refusal_waits_for_answers_that_take_their_time(tmp_path):
    with waiting_for_copies(tmp_path) as connection:
        connection.sendall(b"0\r\n\r\n" + b"NONSENSE\r\n\r\n")
        assert statuses(connection) == [503, 400]


def test_a_head_that_does_not_end_does_not_end_the_answers_before_it(tmp_path):
    with waiting_for_copies(tmp_path, **{"registry.http.wire.protocol.HEAD_TIMEOUT_S": 0.5}) as connection:
        connection.sendall(b"0\r\n\r\n" + MANIFEST[:20])
        assert statuses(connection) == [503]


def test_a_body_that_is_malformed_is_answered_once(server):
    begun = server.client.begin_upload("app")
    with connected(server) as connection:
        head = f"PATCH {begun} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
        connection.sendall(LAYER + head.encode())
        time.sleep(0.1)
        connection.sendall(b"no length\r\n" + MANIFEST)
        assert statuses(connection) == [200, 400]


def test_behind_the_answer_to_a_request_no_refusal_of_its_body_is_sent(server):
    """It would be read as the answer to the next request."""
    head = b"POST /v2/nothing/here HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    with connected(server) as connection:
        connection.sendall(head)
        time.sleep(0.1)
        connection.sendall(b"no length\r\n" + MANIFEST)
        assert statuses(connection) == [404]


def test_a_refusal_never_stands_within_an_answer(tmp_path):
    """The body of a GET breaks while its answer is being read slowly."""
    content = bytes(range(256)) * 64 * 1024
    with running_server(tmp_path / "data") as server:
        digest = server.client.push_blob("app", content)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            connection.settimeout(10)
            connection.connect((server.host, server.port))
            head = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
            connection.sendall(head.encode())
            time.sleep(0.1)
            connection.sendall(b"no length\r\n")
            time.sleep(0.1)
            assert answers(connection) == [(200, content)]


def test_more_requests_behind_a_chunked_body_than_are_taken_are_not_refused(server):
    """Those that are not answered can be repeated, since the connection ends behind the others."""
    begun = server.client.begin_upload("app")
    head = f"PATCH {begun} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n".encode()
    with connected(server) as connection:
        connection.sendall(head)
        time.sleep(0.1)
        connection.sendall(b"0\r\n\r\n" + LAYER * 50)
        found = statuses(connection)
    assert found[0] == 202 and set(found[1:]) == {200} and len(found) < 50


@pytest.mark.parametrize(
    ("version", "connection_header", "chunked"),
    [("1.1", "", False), ("1.1", "", True), *((v, "Connection: close\r\n", c) for v, c in WAYS)],
)
@pytest.mark.parametrize(
    ("target", "status"),
    [("/v2/app/manifests/large", 413), ("/v2/APP/manifests/v2", 400), ("/v2/app/blobs/uploads/none", 404)],
)
def test_a_refusal_is_seen_by_who_sends_the_whole_body_first(
    server, connection_header, version, chunked, target, status
):
    """docker and skopeo close after each request. The socket was closed too, with their bytes unread: a reset, which
    can take the answer away."""
    method, body = ("PATCH" if "uploads" in target else "PUT"), bytes(20 * MIB)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"{method} {target} HTTP/{version}\r\nHost: x\r\n{connection_header}{framing}\r\n\r\n".encode()
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    with connected(server) as connection:
        connection.sendall(head)
        time.sleep(0.05)  # the refusal is there before the body
        connection.sendall(data)
        with connection.makefile("rb") as reader:
            assert int(reader.readline().split()[1]) == status


@pytest.mark.parametrize("host", ["", "Host: x y\r\n"])
def test_a_refused_head_is_answered_to_who_sends_a_manifest_first(server, host):
    body = bytes(4 * MIB)
    with connected(server) as connection:
        head = f"PUT /v2/app/manifests/v1 HTTP/1.1\r\n{host}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        time.sleep(0.05)
        connection.sendall(body[:-200])
        assert statuses(connection) == [400]


def test_a_client_that_goes_on_sending_is_waited_for_so_long_only(tmp_path):
    constants = {"registry.http.wire.closing.LINGER_TIMEOUT_S": 1.0}
    with running_server(tmp_path / "data", constants=constants) as server, connected(server, 30) as connection:
        head = "PUT /v2/APP/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 999999999\r\n\r\n"
        connection.sendall(head.encode())
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 30:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - begun < 15


def test_a_client_that_neither_sends_nor_closes_is_waited_for_so_long_only(tmp_path):
    constants = {"registry.http.wire.closing.SILENCE_TIMEOUT_S": 0.5}
    with running_server(tmp_path / "data", constants=constants) as server, connected(server, 30) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\n\r\n")
        assert statuses(connection) == [400]
        time.sleep(2.0)
        wait_until(lambda: is_closed(connection), 5)


def is_closed(connection):
    """Whether the other end takes nothing more: the first send after that is answered by a reset."""
    try:
        connection.send(b"x")
    except ConnectionError:
        return True
    return False


def test_who_sends_without_end_behind_a_refusal_is_cut_off(server):
    with connected(server) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                connection.sendall(bytes(MIB))
            pytest.fail("20 MiB were taken")

"""Many requests on one connection: answered in order and once each, without harm to others."""

import contextlib
import socket
import threading
import time

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.processes import resident_kib
from tests.support.server import running_server, wait_until

pytestmark = pytest.mark.slow

IMAGE = images.image("pipelined", layers=1, layer_bytes=200_000)
BASE = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
MANIFEST = b"GET /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
LAYER = f"GET /v2/app/blobs/{sha256(IMAGE.blobs[1])} HTTP/1.1\r\nHost: x\r\n".encode()


@pytest.fixture(params=["1", "2"], ids=["one process", "with a reader"])
def server(request, tmp_path):
    with running_server(tmp_path / "data", workers=request.param) as running:
        running.client.push("app", "v1", IMAGE)
        yield running


def answers(connection):
    """Bodies, until the connection ends or nothing comes any more."""
    reader = connection.makefile("rb")
    found = []
    with contextlib.suppress(TimeoutError, ConnectionError):
        while line := reader.readline():
            length = 0
            while (header := reader.readline()) != b"\r\n":
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            found.append((int(line.split()[1]), reader.read(length)))
    return found


@pytest.mark.parametrize("stray", [b"\n\r\n\r\n", b"\r\r\n\r\n", b"\r\n" * 9, b"\n"])
def test_stray_bytes_before_a_request_do_not_repeat_it(server, stray):
    for _ in range(10):
        with socket.create_connection((server.host, server.port), timeout=1) as connection:
            connection.sendall(stray + MANIFEST)
            time.sleep(0.01)
            connection.sendall(stray + BASE + stray + MANIFEST)
            connection.shutdown(socket.SHUT_WR)
            assert [body for _, body in answers(connection)] == [IMAGE.body, b"{}", IMAGE.body]


@pytest.mark.parametrize("cut", [1, 100_000, 400_000, 700_000, 1_400_000])
def test_what_follows_a_large_body_is_the_next_request(server, cut):
    content = bytes(range(256)) * 2500
    push = (
        f"POST /v2/app/blobs/uploads/?digest={sha256(content)} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode()
    unknown = push.replace(b"/v2/app/blobs/uploads/", b"/v2/nothing/here/")
    flood = push + content + MANIFEST + unknown + content + MANIFEST
    with socket.create_connection((server.host, server.port), timeout=2) as connection:
        reading = threading.Thread(target=lambda: found.extend(answers(connection)))
        found = []
        reading.start()
        connection.sendall(flood[:cut])
        time.sleep(0.05)
        connection.sendall(flood[cut:])
        reading.join()
    assert [status for status, _ in found] == [201, 200, 404, 200]
    assert found[1][1] == found[3][1] == IMAGE.body
    assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


@pytest.mark.parametrize("first", ["known length", "chunked"])
@pytest.mark.parametrize("cut", ["none", "behind the head", "before the body ends"])
def test_a_large_body_whose_head_comes_behind_another_body_ends_where_it_ends(server, first, cut):
    """The parser has the beginning of it by then. What followed was taken for its end, and found in the blob."""
    content, token = bytes(300_000), b"Authorization: Bearer secret\r\n"
    begun = server.client.begin_upload("app")
    framing = {"known length": b"Content-Length: 5\r\n\r\n12345", "chunked": b"Transfer-Encoding: chunked\r\n\r\n"}[
        first
    ]
    small = f"PATCH {begun} HTTP/1.1\r\nHost: x\r\n".encode() + framing
    large = f"PATCH {server.client.begin_upload('app')} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n".encode()
    ends = b"" if first == "known length" else b"5\r\n12345\r\n0\r\n\r\n"
    flood = small + ends + large + content + MANIFEST.replace(b"\r\n\r\n", b"\r\n" + token + b"\r\n")
    at = {
        "none": len(flood),
        "behind the head": len(small + ends + large) + 10,
        "before the body ends": len(small) - 2,
    }[cut]
    with socket.create_connection((server.host, server.port), timeout=2) as connection:
        for piece in (flood[:at], flood[at:]):
            connection.sendall(piece)
            time.sleep(0.05)
        found = []
        reader = connection.makefile("rb")
        with contextlib.suppress(TimeoutError, ConnectionError):
            while line := reader.readline():
                headers = {}
                while (header := reader.readline()) != b"\r\n":
                    name, _, value = header.partition(b": ")
                    headers[name.lower()] = value.strip()
                reader.read(int(headers.get(b"content-length", 0)))
                found.append((int(line.split()[1]), headers.get(b"range")))
    assert found == [(202, b"0-4"), (202, b"0-299999"), (200, None)]


def test_who_sends_many_requests_at_once_keeps_nobody_waiting(server):
    """Eight MiB of them take a process many seconds, of which others get their turns."""
    with socket.create_connection((server.host, server.port), timeout=60) as connection:
        flood = b"HEAD /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n" * 80_000

        def send():
            with contextlib.suppress(OSError):
                for _ in range(2):
                    connection.sendall(flood)

        def read():
            with contextlib.suppress(OSError):
                while connection.recv(1 << 20):
                    pass

        sending, reading = threading.Thread(target=send, daemon=True), threading.Thread(target=read, daemon=True)
        sending.start()
        reading.start()
        begun = time.monotonic()
        for _ in range(10):
            assert server.client.get("/v2/app/manifests/v1").body == IMAGE.body
        assert time.monotonic() - begun < 5
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sending.join(10)
        reading.join(10)


@pytest.mark.parametrize("path", ["/", "/v2/app/tags/list"])
def test_requests_that_wait_take_their_bytes_of_memory(server, path):
    before = resident_kib(server)
    with socket.create_connection((server.host, server.port), timeout=2) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 200_000)
        assert server.client.get("/v2/app/manifests/v1").body == IMAGE.body
        assert resident_kib(server) - before < 64 * 1024


def test_what_follows_a_download_that_is_not_read_is_not_taken_in(server):
    content = b"x" * (16 * 1024 * 1024)
    digest = server.client.push_blob("app", content)
    server.client.get(f"/v2/app/blobs/{digest}")
    for _ in range(4):
        before = resident_kib(server)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((server.host, server.port))
            connection.settimeout(1)
            connection.sendall(
                f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n"
                "POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            with contextlib.suppress(TimeoutError):
                for _ in range(400):
                    connection.sendall(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
                pytest.fail("100 MiB were taken in")
            assert resident_kib(server) - before < 48 * 1024


def test_who_reads_nothing_is_cut_off(tmp_path):
    constants = {"registry.http.wire.protocol.UNREAD_TIMEOUT_S": 1.0}
    with running_server(tmp_path / "data", constants=constants) as server:
        digest = server.client.push_blob("app", b"x" * (16 * 1024 * 1024))
        with socket.create_connection((server.host, server.port), timeout=30) as connection:
            connection.sendall(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            wait_until(lambda: under_way(server) == 2)  # with the request for the figure itself
            wait_until(lambda: under_way(server) == 1)
            received = b""
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(1 << 20):
                    received += piece
            assert len(received) < 16 * 1024 * 1024


def under_way(server):
    lines = server.client.get("/metrics").body.decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("concord_requests_in_flight ")))

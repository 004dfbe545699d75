"""Clients that take their time: the slow are served, the silent are not waited for, the endless are cut off."""

import contextlib
import socket
import time

import pytest

from tests.support.server import running_server

pytestmark = pytest.mark.slow

IDLE_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An instance whose patience is shorter than usual."""
    constants = {
        "registry.http.wire.request.BODY_IDLE_TIMEOUT_S": IDLE_S,
        "registry.http.wire.protocol.HEAD_TIMEOUT_S": IDLE_S,
    }
    with running_server(tmp_path_factory.mktemp("slow") / "data", constants=constants) as running:
        yield running


@contextlib.contextmanager
def connected(server, receive_bytes=None):
    with socket.socket() as connection:
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(10)
        connection.connect((server.host, server.port))
        yield connection


def received(connection):
    """Everything up to the end of the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


def test_a_download_may_take_longer_than_a_silence_may(server):
    content = bytes(range(256)) * 40_000
    digest = server.client.push_blob("slow", content)
    with connected(server, receive_bytes=64 * 1024) as connection:
        connection.sendall(f"GET /v2/slow/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        time.sleep(2.5 * IDLE_S)
        assert received(connection).endswith(content)


def test_a_body_that_stops_is_not_waited_for(server):
    location = server.client.begin_upload("slow")
    with connected(server) as connection:
        connection.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc".encode())
        assert received(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("head", [b"", b"GET /v2/ HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_is_not_waited_for(server, head):
    with connected(server) as connection:
        connection.sendall(head)
        begun = time.monotonic()
        assert received(connection) == b""
        assert time.monotonic() - begun < 5 * IDLE_S


@pytest.mark.parametrize(
    "piece", [b"x" * 50_000, b"X-Another: " + b"y" * 200 + b"\r\n"], ids=["one field", "many fields"]
)
def test_a_head_without_end_is_refused(server, piece):
    with connected(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Field: ")
        for _ in range(20 * 1024 * 1024 // len(piece)):
            connection.sendall(piece)
        pytest.fail("20 MiB of head were taken")
    assert server.client.get("/v2/").status == 200


def test_a_long_head_within_the_bound_is_served(server):
    assert server.client.get("/v2/", X_Field="x" * 30_000).status == 200


def test_a_stray_byte_after_an_answer_keeps_no_connection_open(server):
    with connected(server) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(65536)
        connection.sendall(b"\r\n")
        begun = time.monotonic()
        assert received(connection) == b""
        assert time.monotonic() - begun < 5 * IDLE_S


@pytest.mark.parametrize("piece", [b"x" * 50_000, b"X-A: " + b"y" * 200 + b"\r\n"], ids=["one field", "many fields"])
@pytest.mark.parametrize("path", ["/v2/slow/blobs/uploads/", "/nowhere"])
def test_trailers_without_end_are_refused(server, piece, path):
    with connected(server) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Field: "
        connection.sendall(head.encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(20 * 1024 * 1024 // len(piece)):
                connection.sendall(piece)
            pytest.fail("20 MiB of trailers were taken")

"""HTTP/1.0 (RFC 9112, sections 2.3 and 6.1): clients and proxies of that version get what they can read."""

import json
import socket

import pytest

from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.server import running_server

IMAGE = images.image("old", layers=1, layer_bytes=400_000)
TAGS = [f"v{number:04}" for number in range(1200)]
"""More than are written in one piece."""


@pytest.fixture(params=["1", "2"], ids=["one process", "with a worker"], scope="module")
def server(request, tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("old") / "data", workers=request.param) as running:
        running.client.push("app", TAGS[0], IMAGE)
        for first in range(0, len(TAGS), 50):
            query = "&".join(f"tag={tag}" for tag in TAGS[first : first + 50])
            path = f"/v2/app/manifests/{IMAGE.digest}?{query}"
            answer = running.client.request("PUT", path, IMAGE.body, {"Content-Type": IMAGE.media_type})
            assert answer.status == 201
        yield running


def received(server, data):
    """The head and the body of the one answer on a connection."""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(data)
        got = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = got.partition(b"\r\n\r\n")
    return head.lower(), body


def ask(server, method, target, more="", body=b""):
    return received(server, f"{method} {target} HTTP/1.0\r\n{more}\r\n".encode() + body)


@pytest.mark.parametrize("more", ["", "Host: x\r\n", "Connection: keep-alive\r\n"])
@pytest.mark.parametrize(
    ("target", "key", "expected"),
    [
        ("/v2/app/tags/list", "tags", TAGS),
        ("/v2/app/tags/list?n=3", "tags", TAGS[:3]),
        ("/v2/app/tags/list?last=v1197", "tags", TAGS[1198:]),
        ("/v2/_catalog", "repositories", ["app"]),
    ],
)
def test_lists_are_not_chunked_and_end_with_the_connection(server, more, target, key, expected):
    for _ in range(3):
        head, body = ask(server, "GET", target, more)
        assert head.startswith(b"http/1.1 200 ") and b"connection: close" in head
        assert b"transfer-encoding" not in head
        assert json.loads(body)[key] == expected


def test_head_of_a_list_has_no_body_and_no_chunks(server):
    for target in ("/v2/app/tags/list", "/v2/_catalog", "/v2/app/tags/list?n=3"):
        head, body = ask(server, "HEAD", target)
        assert head.startswith(b"http/1.1 200 ") and b"transfer-encoding" not in head
        assert body == b""


def test_content_and_errors_have_their_length(server):
    digest = sha256(IMAGE.blobs[1])
    for target, status, expected in (
        ("/v2/app/manifests/v0001", 200, IMAGE.body),
        (f"/v2/app/blobs/{digest}", 200, IMAGE.blobs[1]),
        ("/v2/", 200, b"{}"),
        ("/v2/app/manifests/none", 404, None),
    ):
        head, body = ask(server, "GET", target)
        assert head.startswith(f"http/1.1 {status} ".encode())
        assert f"content-length: {len(body)}".encode() in head
        assert expected in (None, body)


def test_a_push_by_an_old_client_is_carried_out_without_an_interim_answer(server):
    """Expect is of HTTP/1.1; an older client would take the interim answer for the answer."""
    content = b"pushed by an old client" * 30_000
    for more in ("", "Expect: 100-continue\r\n"):
        location = server.client.begin_upload("app")
        framing = f"Content-Length: {len(content)}\r\n"
        head, _ = ask(server, "PUT", with_digest(location, sha256(content)), framing + more, content)
        assert head.startswith(b"http/1.1 201 ")
    assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content

"""Requests that make no sense: each has its code and its status, never 5xx, and changes nothing."""

import random
import socket

import pytest

from registry import errors
from tests.support.client import sha256

D = sha256(b"x")

CODES = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}


def all_errors(root=errors.OciError):
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def test_every_error_has_one_of_the_fourteen_codes():
    assert {error.code for error in all_errors()} <= CODES


NAMES = [
    "A",
    "a_",
    "_a",
    "a..b",
    "a___b",
    "a/",
    "/a",
    "a//b",
    "a/-b",
    "-a",
    "a b",
    "ä",
    "a\n",
    "..",
    "a/../b",
    "a" * 256,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", "manifests/v1"),
        ("PUT", "manifests/v1"),
        ("DELETE", "manifests/v1"),
        ("GET", f"blobs/{D}"),
        ("DELETE", f"blobs/{D}"),
        ("POST", "blobs/uploads/"),
        ("GET", "tags/list"),
        ("GET", f"referrers/{D}"),
    ],
)
def test_a_malformed_name_is_400(client, name, method, rest):
    from urllib.parse import quote

    answer = client.request(method, f"/v2/{quote(name)}/{rest}", b"" if method in ("PUT", "POST") else None)
    assert (answer.status, answer.code) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v2/a/blobs/{D}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:abc", 400, "DIGEST_INVALID"),
        ("DELETE", f"/v2/a/blobs/{D}", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/manifests/v1", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/a/manifests/-", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/a/manifests/{D}", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "/v2/a/manifests/-", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/a/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/b/c", 404, "UNSUPPORTED"),
        ("GET", "/v2//", 404, "UNSUPPORTED"),
        ("GET", "/nothing", 404, "UNSUPPORTED"),
        ("GET", "/_concord/nothing", 404, "UNSUPPORTED"),
        ("POST", "/v2/a/manifests/v1", 405, "UNSUPPORTED"),
        ("PATCH", "/v2/a/tags/list", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/_catalog", 405, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/uploads/", 405, "UNSUPPORTED"),
        ("PUT", f"/v2/a/blobs/{D}", 405, "UNSUPPORTED"),
        ("GET", "/v2/_catalog?n=x", 400, "UNSUPPORTED"),
        ("GET", "/v2/_catalog?n=%C2%B2", 400, "UNSUPPORTED"),
        ("GET", "/v2/_catalog?n=%D9%A3", 400, "UNSUPPORTED"),
        ("GET", "/_concord/digest?repository=none", 404, "NAME_UNKNOWN"),
        ("GET", "/_concord/digest?repository=NOT", 400, "NAME_INVALID"),
    ],
)
def test_each_cause_has_its_status_and_code(client, method, path, status, code):
    answer = client.request(method, path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"


def test_head_of_an_error_has_no_body(client):
    answer = client.head("/v2/a/manifests/v1")
    assert (answer.status, answer.body) == (404, b"")


def test_405_says_what_is_allowed(client):
    assert client.request("POST", "/v2/a/manifests/v1").headers["Allow"] == "DELETE, GET, HEAD, PUT"


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b'{"places": 1}', b'{"places": [["zz", 4]]}', b'{"places": [["1", 999]]}']
)
def test_a_malformed_comparison_is_400(client, body):
    assert client.request("POST", "/_concord/digest", body).status == 400


def test_a_request_that_is_no_http_is_400_and_logs_nothing(alone):
    before = alone.log.read_text()
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection((alone.host, alone.port)) as connection:
            connection.sendall(data)
            connection.settimeout(2)
            assert b" 400 " in connection.recv(1000)
    assert alone.client.get("/v2/").status == 200
    assert alone.log.read_text() == before


def test_hostile_names_and_digests_never_leave_the_directory_and_never_fail(alone):
    """A few thousand of them over HTTP; the grammar itself sees a million in tests/oci/test_names.py."""
    drawn = random.Random(3)
    pieces = [
        "..",
        ".",
        "/",
        "%2f",
        "%2e%2e",
        "%00",
        "%0a",
        "sha256:",
        "a",
        "A",
        "blobs",
        "uploads",
        "manifests",
        "\\",
        ":",
        "%ff",
        "?",
        "#",
    ]
    client = alone.client
    for _ in range(2000):
        path = "".join(drawn.choice(pieces) for _ in range(drawn.randrange(1, 12)))
        method = drawn.choice(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"])
        answer = client.request(method, f"/v2/{path}", b"x" if method in ("PUT", "POST", "PATCH") else None)
        assert answer.status < 500, (method, path, answer)

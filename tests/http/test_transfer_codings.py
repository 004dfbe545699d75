"""Bodies whose transfer coding is more than chunked are refused, never stored as they are (RFC 9112, section 6.1)."""

import socket

import pytest

from registry.http.wire.heads import refusal_of
from tests.support.client import sha256

CONTENT = b"not gzip at all"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT)
CASES = [
    ("Transfer-Encoding: chunked", "1.1", 0),
    ("Transfer-Encoding: Chunked ", "1.1", 0),
    ("Transfer-Encoding: gzip, chunked", "1.1", 501),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "1.1", 501),
    ("Transfer-Encoding: identity, chunked", "1.1", 501),
    ("Transfer-Encoding: chunked;q=1, chunked", "1.1", 501),
    ("Transfer-Encoding: chunked, chunked", "1.1", 400),
    ("Transfer-Encoding: , chunked", "1.1", 501),
    ("Transfer-Encoding: chunked", "1.0", 400),
    ("TE: gzip", "1.1", 0),
]


@pytest.mark.parametrize(("fields", "version", "status"), CASES)
def test_a_transfer_coding_other_than_chunked_is_refused(fields, version, status):
    headers = [tuple(part.strip() for part in line.lower().split(":", 1)) for line in fields.split("\r\n")]
    raw = [(name.encode(), value.encode()) for name, value in headers]
    refusal = refusal_of(version, [(b"host", b"x"), *raw])
    assert (refusal.status if refusal else 0) == status


@pytest.mark.parametrize(
    "fields", ["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"]
)
def test_a_push_with_a_transfer_coding_that_is_not_known_is_501_and_stores_nothing(alone, repository, fields):
    target = f"/v2/{repository}/blobs/uploads/?digest={sha256(CONTENT)}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"
    with socket.create_connection((alone.host, alone.port), timeout=20) as connection:
        connection.sendall(head.encode() + CHUNKED)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 501 ") and b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1") == 1, "its body is no request"
    assert alone.client.head(f"/v2/{repository}/blobs/{sha256(CONTENT)}").status == 404

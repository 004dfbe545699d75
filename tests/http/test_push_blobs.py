"""Pushing blobs: the ways, and what may go wrong on each."""

import hashlib
import http.client
import os
import socket
from urllib.parse import urlencode

import pytest

from tests.support.client import sha256, with_digest
from tests.support.server import wait_until

CONTENT = b"some content of a blob" * 50


def offset(client, location: str) -> str:
    return client.get(location).headers["Range"]


def test_post_then_put(client, repository):
    location = client.begin_upload(repository)
    answer = client.request("PUT", with_digest(location, sha256(CONTENT)), CONTENT)
    assert answer.status == 201
    assert answer.headers["Location"] == f"/v2/{repository}/blobs/{sha256(CONTENT)}"
    assert client.get(answer.headers["Location"]).body == CONTENT


def test_single_post(client, repository):
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?digest={sha256(CONTENT)}", CONTENT)
    assert answer.status == 201
    assert client.get(answer.headers["Location"]).body == CONTENT


def test_uploads_path_works_without_its_slash(client, repository):
    assert client.request("POST", f"/v2/{repository}/blobs/uploads", b"").status == 202


def test_chunks_in_order(client, repository):
    location = client.begin_upload(repository)
    for first in range(0, len(CONTENT), 400):
        chunk = CONTENT[first : first + 400]
        header = {"Content-Range": f"{first}-{first + len(chunk) - 1}"}
        answer = client.request("PATCH", location, chunk, header)
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{first + len(chunk) - 1}"
        location = answer.headers["Location"]
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201
    assert client.get(f"/v2/{repository}/blobs/{sha256(CONTENT)}").body == CONTENT


def test_the_last_chunk_may_come_with_the_put(client, repository):
    location = client.begin_upload(repository)
    location = client.request("PATCH", location, CONTENT[:100], {"Content-Range": "0-99"}).headers["Location"]
    rest = {"Content-Range": f"100-{len(CONTENT) - 1}"}
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), CONTENT[100:], rest).status == 201


def test_a_stream_of_unknown_length(client, repository):
    location = client.begin_upload(repository)
    answer = client.request("PATCH", location, iter([CONTENT[:7], CONTENT[7:]]))
    assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(CONTENT) - 1}")
    assert client.request("PUT", with_digest(answer.headers["Location"], sha256(CONTENT)), iter([])).status == 201


def test_sha512_streamed_and_read_again(client, repository):
    digest = "sha512:" + hashlib.sha512(CONTENT).hexdigest()
    assert client.push_blob(repository, CONTENT, digest) == digest
    answer = client.get(f"/v2/{repository}/blobs/{digest}")
    assert (answer.body, answer.headers["Docker-Content-Digest"]) == (CONTENT, digest)


def test_status_of_an_upload(client, repository):
    location = client.begin_upload(repository)
    answer = client.get(location)
    assert (answer.status, answer.headers["Range"]) == (204, "0-0")
    client.request("PATCH", location, CONTENT)
    assert offset(client, location) == f"0-{len(CONTENT) - 1}"
    assert client.get(with_digest(location, sha256(CONTENT))).status == 204


def test_cancelling_an_upload(client, repository):
    location = client.begin_upload(repository)
    client.request("PATCH", location, CONTENT)
    assert client.delete(location).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = client.request(method, location, b"x" if method == "PATCH" else None)
        assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_finished_upload_is_unknown(client, repository):
    location = client.begin_upload(repository)
    finish = with_digest(location, sha256(CONTENT))
    assert client.request("PUT", finish, CONTENT).status == 201
    assert client.request("PUT", finish, CONTENT).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize(("first", "last"), [(50, 149), (200, 299)])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_chunk_out_of_order_is_416_and_the_upload_lives_on(client, repository, method, first, last):
    location = client.begin_upload(repository)
    location = client.request("PATCH", location, CONTENT[:100], {"Content-Range": "0-99"}).headers["Location"]
    target = with_digest(location, sha256(CONTENT)) if method == "PUT" else location
    answer = client.request(method, target, CONTENT[first : last + 1], {"Content-Range": f"{first}-{last}"})
    assert (answer.status, answer.code) == (416, "BLOB_UPLOAD_INVALID")
    assert (answer.headers["Range"], bool(answer.headers["Location"])) == ("0-99", True)
    assert offset(client, location) == "0-99"
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), CONTENT[100:]).status == 201


@pytest.mark.parametrize("header", ["bytes", "a-b", "5", "10-5", "0-", "-5", "0-99/x"])
def test_a_malformed_content_range_is_400_and_changes_nothing(client, repository, header):
    location = client.begin_upload(repository)
    answer = client.request("PATCH", location, CONTENT[:100], {"Content-Range": header})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert offset(client, location) == "0-0"


def test_content_range_and_length_that_contradict_are_400(client, repository):
    location = client.begin_upload(repository)
    answer = client.request("PATCH", location, CONTENT[:100], {"Content-Range": "0-49"})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert offset(client, location) == "0-0"


@pytest.mark.parametrize("sent", [40, 60])
def test_a_stream_of_another_length_than_its_range_is_400_and_taken_back(client, repository, sent):
    location = client.begin_upload(repository)
    client.request("PATCH", location, CONTENT[:10], {"Content-Range": "0-9"})
    answer = client.request("PATCH", location, iter([CONTENT[10 : 10 + sent]]), {"Content-Range": "10-59"})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert offset(client, location) == "0-9"
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), CONTENT[10:]).status == 201


def test_a_wrong_digest_is_400_and_the_upload_is_as_it_was(client, repository):
    location = client.begin_upload(repository)
    location = client.request("PATCH", location, CONTENT).headers["Location"]
    answer = client.request("PUT", with_digest(location, sha256(b"other")), b"and more")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert client.get(f"/v2/{repository}/blobs/{sha256(b'other')}").status == 404
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201


A = "a" * 64


@pytest.mark.parametrize(
    "digest",
    [
        *(
            "",
            "sha256",
            "sha256:",
            "sha256:abc",
            "sha256:" + "A" * 64,
            "sha256:" + A[1:],
            "sha512:" + A,
            "md5:" + A[:32],
        ),
        *("sha256:" + A + "\n", "sha256:" + A[4:] + "/../"),
    ],
)
@pytest.mark.parametrize("way", ["PUT", "POST", "mount"])
def test_a_malformed_digest_is_400(client, repository, digest, way):
    from urllib.parse import quote

    if way == "PUT":
        answer = client.request("PUT", with_digest(client.begin_upload(repository), digest), CONTENT)
    else:
        parameter = "digest" if way == "POST" else "mount"
        answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?{parameter}={quote(digest)}", CONTENT)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_put_without_a_digest_is_400(client, repository):
    answer = client.request("PUT", client.begin_upload(repository), CONTENT)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_an_unsupported_digest_algorithm_is_400(client, repository):
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?digest-algorithm=md5", b"")
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")


@pytest.mark.parametrize("name", ["x", "x.e", "..", "%2e%2e%5cetc", "A" * 300, "bm9wZQ.b00"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_upload_id_that_was_never_given_out_is_unknown(client, repository, name, method):
    answer = client.request(method, f"/v2/{repository}/blobs/uploads/{name}", b"x" if method == "PATCH" else None)
    assert (answer.status, answer.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_id_of_another_repository_is_unknown(client, repository):
    location = client.begin_upload(repository)
    elsewhere = location.replace(repository, f"{repository}-other")
    assert client.request("PATCH", elsewhere, CONTENT).code == "BLOB_UPLOAD_UNKNOWN"


def test_a_body_that_breaks_off_keeps_what_arrived_and_can_go_on(alone, client, repository):
    location, before = client.begin_upload(repository), alone.upload_bytes()
    with socket.create_connection((client.host, client.port)) as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        connection.sendall(head.encode() + CONTENT[:500])
        wait_until(lambda: alone.upload_bytes() == before + 500)
    wait_until(lambda: offset(client, location) == "0-499")
    rest = {"Content-Range": f"500-{len(CONTENT) - 1}"}
    assert client.request("PATCH", location, CONTENT[500:], rest).status == 202
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201


def test_expect_continue_is_honoured(client, repository):
    location = client.begin_upload(repository)
    connection = http.client.HTTPConnection(client.host, client.port)
    connection.putrequest("PATCH", location)
    for name, value in (("Expect", "100-continue"), ("Content-Length", "5")):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"hello")
    assert connection.getresponse().status == 202


def test_mount_from_a_repository_that_has_the_blob(client, repository):
    digest = client.push_blob(f"{repository}/source", CONTENT)
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}/source", b"")
    assert answer.status == 201
    assert client.get(answer.headers["Location"]).body == CONTENT


def test_mount_without_from_finds_the_blob_anywhere(client, repository):
    digest = client.push_blob(f"{repository}/source", CONTENT + b"anywhere")
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}", b"")
    assert answer.status == 201


@pytest.mark.parametrize("query", ["mount={d}&from=test/none", "mount={d}&from={r}/source", "mount={d}"])
def test_mount_of_what_is_not_there_begins_an_upload(client, repository, query):
    client.push_blob(f"{repository}/source", CONTENT)
    digest = sha256(repository.encode())
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?{query.format(d=digest, r=repository)}", b"")
    assert (answer.status, bool(answer.headers["Location"])) == (202, True)


OTHER_NAMES = [
    *("Upper/Case", ".github/image", "team/.image", "a//b", "a" * 300, "registry.example.com:5000/app"),
    *("../etc", "\u00fc", "a\n", "%"),
]


@pytest.mark.parametrize("source", OTHER_NAMES)
def test_a_mount_whose_source_is_no_name_here_begins_an_upload(client, repository, source):
    """Clients name what they know of other registries. The blob is not mounted from another repository instead."""
    content = repository.encode()
    digest = client.push_blob(f"{repository}/source", content)
    query = urlencode({"mount": digest, "from": source})
    answer = client.request("POST", f"/v2/{repository}/blobs/uploads/?{query}", b"")
    assert (answer.status, bool(answer.headers["Location"])) == (202, True)
    assert client.get(f"/v2/{repository}/blobs/{digest}").status == 404
    assert client.request("PUT", with_digest(answer.headers["Location"], digest), content).status == 201


def test_a_mounted_blob_outlives_its_source(client, repository):
    digest = client.push_blob(f"{repository}/source", CONTENT)
    client.request("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}/source", b"")
    assert client.delete(f"/v2/{repository}/source/blobs/{digest}").status == 202
    assert client.get(f"/v2/{repository}/source/blobs/{digest}").status == 404
    assert client.get(f"/v2/{repository}/blobs/{digest}").body == CONTENT


def test_deleting_a_blob(client, repository):
    digest = client.push_blob(repository, CONTENT)
    assert client.delete(f"/v2/{repository}/blobs/{digest}").status == 202
    for answer in (client.get(f"/v2/{repository}/blobs/{digest}"), client.delete(f"/v2/{repository}/blobs/{digest}")):
        assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    assert client.push_blob(repository, CONTENT) == digest
    assert client.get(f"/v2/{repository}/blobs/{digest}").body == CONTENT


def test_the_same_blob_pushed_many_times_at_once(alone, repository):
    from concurrent.futures import ThreadPoolExecutor

    content = bytes(range(256)) * 4000
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(lambda _: alone.client.push_blob(repository, content), range(16)))
    assert digests == {sha256(content)}
    assert alone.client.get(f"/v2/{repository}/blobs/{sha256(content)}").body == content


def test_two_requests_for_one_upload_take_turns(alone, repository):
    from concurrent.futures import ThreadPoolExecutor

    location = alone.client.begin_upload(repository)

    def send(byte: bytes) -> int:
        return alone.client.request("PATCH", location, byte * 300_000, {"Content-Range": "0-299999"}).status

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(send, [b"a", b"b"])) == [202, 416]
    assert offset(alone.client, location) == "0-299999"


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("size", [10_000, 300_000], ids=["small", "large"])
def test_a_stream_sent_again_from_its_beginning_is_416_at_once(alone, client, repository, method, size):
    """It was appended, and the push failed at its end, when the digest was compared."""
    content = os.urandom(size)
    location = client.begin_upload(repository)
    location = client.request("PATCH", location, iter([content[: size // 2]])).headers["Location"]
    target = with_digest(location, sha256(content)) if method == "PUT" else location
    with socket.create_connection((client.host, client.port), timeout=5) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * size}\r\n\r\n"
        connection.sendall(head.encode() + content)  # the rest never comes
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
    assert received.startswith(b"HTTP/1.1 416 ")
    assert f"range: 0-{size // 2 - 1}\r\n".encode() in received.lower() and b"location:" in received.lower()
    assert client.request(method, target, content).status == 416
    assert offset(client, location) == f"0-{size // 2 - 1}"
    assert client.request("PUT", with_digest(location, sha256(content)), content[size // 2 :]).status == 201


def test_streams_that_continue_without_a_content_range_are_appended(client, repository):
    location = client.begin_upload(repository)
    for first in range(0, len(CONTENT), 350):
        location = client.request("PATCH", location, iter([CONTENT[first : first + 350]])).headers["Location"]
    assert client.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201

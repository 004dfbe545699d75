"""Answers that are given where a request's head ends, and kept: they are right, in order, and bounded."""

import contextlib
import json
import re
import socket

import pytest

from registry.http.wire.fast_path import _PAGE, CachedResponse, _cost
from tests.support import images
from tests.support.client import Client, sha256
from tests.support.processes import owner_of, resident_kib, standing_still, wait_for_children
from tests.support.server import running_server, wait_until

IMAGE = images.image("direct", layers=1, layer_bytes=1000)
OTHER = images.image("another", layers=1, layer_bytes=1000)
BLOB = IMAGE.blobs[1]


@contextlib.contextmanager
def kept_connection(server):
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        yield connection, connection.makefile("rb")


def request(path, method="GET", *more):
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: here", *more, "", "")).encode()


def answer(reader, method="GET"):
    status = int(reader.readline().split()[1])
    headers = {}
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b": ")
        headers[name.decode().lower()] = value.decode()
    return status, headers, b"" if method == "HEAD" else reader.read(int(headers["content-length"]))


def served(server, method, template):
    """How many requests of a route were answered 200."""
    said = server.client.get("/metrics").body.decode()
    found = re.search(
        rf'^concord_requests_total{{method="{method}",route="{re.escape(template)}",status="200"}} (\S+)$', said, re.M
    )
    return float(found[1]) if found else 0.0


@pytest.fixture
def pushed(alone, repository):
    alone.client.push(repository, "v1", IMAGE)
    return repository


def test_a_kept_answer_ends_with_the_tag_it_was_for(alone, pushed):
    path = f"/v2/{pushed}/manifests/v1"
    with kept_connection(alone) as (connection, reader):
        for expected in (IMAGE, OTHER, IMAGE):
            alone.client.push(pushed, "v1", expected)
            for _ in range(3):
                connection.sendall(request(path))
                assert answer(reader)[2] == expected.body
        assert alone.client.delete(path).status == 202
        connection.sendall(request(path))
        assert answer(reader)[0] == 404


def test_a_kept_page_of_tags_ends_with_the_next_write(alone, pushed):
    path, tags = f"/v2/{pushed}/tags/list?n=100", ["v1"]
    with kept_connection(alone) as (connection, reader):
        for number in range(2, 5):
            for _ in range(2):
                connection.sendall(request(path))
                assert json.loads(answer(reader)[2]) == {"name": pushed, "tags": tags}
            tags.append(f"v{number}")
            alone.client.put_manifest(pushed, tags[-1], IMAGE.body, IMAGE.media_type)


def test_what_is_kept_counts_whole_and_a_long_last_goes_the_long_way():
    """Anybody may ask for lists, behind whatever they like."""
    target = b"/v2/app/tags/list?n=1&last="
    assert _PAGE.match((target + b"a" * 128).decode())
    assert not _PAGE.match((target + b"a" * 129).decode())
    cached = CachedResponse("", b"h" * 300, b"b" * 20, "", 0, None)
    assert _cost(target, cached) >= len(target) + 320


def test_a_kept_blob_ends_with_its_link(alone, pushed):
    path = f"/v2/{pushed}/blobs/{sha256(BLOB)}"
    with kept_connection(alone) as (connection, reader):
        for _ in range(2):
            connection.sendall(request(path))
            assert answer(reader)[2] == BLOB
        assert alone.client.delete(path).status == 202
        connection.sendall(request(path))
        assert answer(reader)[0] == 404


def test_the_short_way_says_what_the_long_one_says(alone, pushed):
    alone.client.put_manifest(pushed, "v2", IMAGE.body, IMAGE.media_type)
    pages = (
        f"/v2/{pushed}/tags/list?n={page}" for page in ("1", "2", "2&last=", "1&last=v1", "3&last=v2", "1000&last=v")
    )
    for path in (f"/v2/{pushed}/manifests/v1", f"/v2/{pushed}/blobs/{sha256(BLOB)}", *pages):
        with kept_connection(alone) as (connection, reader):
            connection.sendall(request(path))
            short = answer(reader)
            connection.sendall(request(path, "GET", "Content-Length: 0"))  # which only the long one takes
            long = answer(reader)
        for of in (short, long):
            for name in ("date", "x-request-id", "connection"):
                of[1].pop(name, None)
        assert short == long


def test_head_of_a_manifest_has_no_body_and_what_follows_is_in_order(alone, pushed):
    path = f"/v2/{pushed}/manifests/v1"
    with kept_connection(alone) as (connection, reader):
        connection.sendall(request(path, "HEAD") + request(path))
        status, headers, _ = answer(reader, "HEAD")
        assert (status, headers["content-length"]) == (200, str(len(IMAGE.body)))
        assert answer(reader)[2] == IMAGE.body


def test_a_last_request_is_answered_and_the_connection_ends(alone, pushed):
    with kept_connection(alone) as (connection, reader):
        sent = request(f"/v2/{pushed}/manifests/v1", "GET", "Connection: close") + request("/v2/")
        connection.sendall(sent)
        status, headers, body = answer(reader)
        assert (status, headers["connection"], body) == (200, "close", IMAGE.body)
        assert reader.read() == b""


def test_requests_sent_at_once_are_answered_in_order_whichever_way_each_goes(alone, pushed):
    manifest, blob = f"/v2/{pushed}/manifests/v1", f"/v2/{pushed}/blobs/{sha256(BLOB)}"
    batch = [
        (request(manifest), 200, IMAGE.body),
        (request(blob, "GET", "Range: bytes=0-9"), 206, BLOB[:10]),
        (request(blob), 200, BLOB),
        (request(f"/v2/{pushed}/manifests/none"), 404, None),
        (request(manifest), 200, IMAGE.body),
        (request(blob + "?ns=registry.example"), 200, BLOB),
    ]
    with kept_connection(alone) as (connection, reader):
        for _ in range(10):
            connection.sendall(b"".join(sent for sent, _, _ in batch))
            for _, status, body in batch:
                got = answer(reader)
                assert got[0] == status
                assert body is None or got[2] == body


def test_conditions_and_hosts_are_looked_at_though_the_answer_is_kept(alone, pushed):
    path = f"/v2/{pushed}/blobs/{sha256(BLOB)}"
    assert alone.client.get(path).status == 200
    assert alone.client.get(path, If_None_Match=f'"{sha256(BLOB)}"').status == 304
    assert alone.client.get(path, Range="bytes=5000-").status == 416
    assert alone.client.get(path + "?ns=elsewhere.example").status == 404


def test_whoever_does_not_read_is_not_answered_without_end(alone, repository):
    """16,000 answers of 60 KB would be a gigabyte."""
    blob = b"x" * 60_000
    alone.client.push_blob(repository, blob)
    before = resident_kib(alone)
    with kept_connection(alone) as (connection, reader):
        connection.settimeout(2)
        sent = request(f"/v2/{repository}/blobs/{sha256(blob)}") * 16_000
        with contextlib.suppress(TimeoutError):
            connection.sendall(sent)
        wait_until(lambda: alone.client.get("/healthz").status == 200)
        assert resident_kib(alone) - before < 64 * 1024
        connection.settimeout(30)
        for _ in range(10):
            assert answer(reader)[2] == blob


def test_what_is_kept_was_compared_with_its_digest(tmp_path):
    """A file that has rotted since its last check is not taken up, and counts as gone."""
    with running_server(tmp_path / "data") as server:
        digest = server.client.push_blob("app", BLOB)
        file = server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]
        file.write_bytes(b"y" + BLOB[1:])
        with kept_connection(server) as (connection, reader):
            for _ in range(2):
                connection.sendall(request(f"/v2/app/blobs/{digest}"))
                assert answer(reader)[0] == 503
        server.client.push_blob("app", BLOB)
        with kept_connection(server) as (connection, reader):
            connection.sendall(request(f"/v2/app/blobs/{digest}"))
            assert answer(reader)[2] == BLOB
            file.write_bytes(b"y" + BLOB[1:])
            connection.sendall(request(f"/v2/app/blobs/{digest}"))
            assert answer(reader)[2] == BLOB, "what was kept is right whatever the disk does"


def test_content_that_is_due_is_checked_though_its_answer_was_kept(tmp_path):
    with running_server(tmp_path / "data", verify_after_s="0") as server:
        digest = server.client.push_blob("app", BLOB)
        path = f"/v2/app/blobs/{digest}"
        assert server.client.get(path).body == BLOB
        file = server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]
        file.write_bytes(b"y" + BLOB[1:])
        with kept_connection(server) as (connection, reader):
            connection.sendall(request(path))
            assert answer(reader)[0] == 503


def test_direct_answers_are_counted_like_others(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", IMAGE)
        with kept_connection(server) as (connection, reader):
            for _ in range(5):
                connection.sendall(request("/v2/app/manifests/v1"))
                answer(reader)
        assert served(server, "GET", "/v2/<name>/manifests/<reference>") == 5


def test_an_id_that_a_request_brings_is_on_its_direct_answer(alone, pushed):
    with kept_connection(alone) as (connection, reader):
        connection.sendall(request(f"/v2/{pushed}/manifests/v1", "GET", "X-Request-Id: abc-1"))
        assert answer(reader)[1]["x-request-id"] == "abc-1"


MISSING = "sha256:" + "0" * 64


def test_a_miss_is_answered_as_the_long_way_does_and_found_after_the_push(alone, pushed):
    paths = [f"/v2/{pushed}/blobs/{MISSING}", f"/v2/{pushed}/manifests/none", f"/v2/{pushed}/manifests/{MISSING}"]
    for path in [*paths, "/v2/no/such/blobs/" + MISSING]:
        for method in ("GET", "HEAD"):
            with kept_connection(alone) as (connection, reader):
                connection.sendall(request(path, method))
                short = answer(reader, method)
                connection.sendall(request(path, method, "Content-Length: 0"))  # which only the long one takes
                long = answer(reader, method)
            for of in (short, long):
                for name in ("date", "x-request-id", "connection"):
                    of[1].pop(name, None)
            assert short == long and short[0] == 404
    with kept_connection(alone) as (connection, reader):
        path = f"/v2/{pushed}/manifests/later"
        connection.sendall(request(path))
        assert answer(reader)[0] == 404
        alone.client.put_manifest(pushed, "later", IMAGE.body, IMAGE.media_type)
        connection.sendall(request(path))
        assert answer(reader)[2] == IMAGE.body


def test_a_worker_answers_misses_while_the_primary_stands_still(tmp_path):
    with running_server(tmp_path / "data", workers="2") as server:
        wait_for_children(server, 2)
        server.client.push("app", "v1", IMAGE)
        wait_until(lambda: server.client.head("/v2/app/manifests/none").status == 404)
        with standing_still(owner_of(server)):
            client = Client(server.host, server.port, timeout_s=5)
            for method in ("GET", "HEAD"):
                assert client.request(method, f"/v2/app/blobs/{MISSING}").status == 404
                assert client.request(method, "/v2/app/manifests/none").status == 404

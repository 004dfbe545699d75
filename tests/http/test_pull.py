"""Pulling: manifests, blobs, ranges, conditional requests."""

import pytest

from tests.support import images
from tests.support.client import sha256

IMAGE = images.image("pull", layers=1, layer_bytes=1000)
BLOB = IMAGE.blobs[1]


@pytest.fixture(scope="module")
def pulled(alone):
    alone.client.push("pull/app", "v1", IMAGE)
    return alone.client


def test_base_says_which_api_this_is(client):
    answer = client.get("/v2/")
    assert (answer.status, answer.headers["Docker-Distribution-API-Version"]) == (200, "registry/2.0")
    assert client.get("/v2").status == 200


@pytest.mark.parametrize("reference", ["v1", IMAGE.digest])
def test_manifest_comes_as_it_was_pushed(pulled, reference):
    answer = pulled.get(f"/v2/pull/app/manifests/{reference}")
    assert answer.body == IMAGE.body
    assert answer.headers["Content-Type"] == images.OCI_IMAGE
    assert answer.headers["Docker-Content-Digest"] == IMAGE.digest
    assert answer.headers["Content-Length"] == str(len(IMAGE.body))


@pytest.mark.parametrize("reference", ["v1", IMAGE.digest])
def test_head_of_manifest_has_the_headers_and_no_body(pulled, reference):
    answer = pulled.head(f"/v2/pull/app/manifests/{reference}")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(IMAGE.body))
    assert answer.headers["Docker-Content-Digest"] == IMAGE.digest


def test_accept_never_changes_the_answer(pulled):
    for accept in ("application/json", images.DOCKER_IMAGE, "text/html;q=0.1", ""):
        answer = pulled.get("/v2/pull/app/manifests/v1", Accept=accept, Accept_Encoding="gzip")
        assert (answer.status, answer.body) == (200, IMAGE.body)
        assert "Content-Encoding" not in answer.headers


def test_blob_comes_whole(pulled):
    answer = pulled.get(f"/v2/pull/app/blobs/{sha256(BLOB)}")
    assert answer.body == BLOB
    assert answer.headers["Docker-Content-Digest"] == sha256(BLOB)
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_head_of_blob_has_the_headers_and_no_body(pulled):
    answer = pulled.head(f"/v2/pull/app/blobs/{sha256(BLOB)}")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, "1000", b"")


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=10-", 10, 999),
        ("bytes=-10", 990, 999),
        ("bytes=-5000", 0, 999),
        ("bytes=990-5000", 990, 999),
        ("bytes=999-999", 999, 999),
        ("BYTES=0-0", 0, 0),
    ],
)
def test_a_range_is_206_with_exact_headers(pulled, header, first, last):
    answer = pulled.get(f"/v2/pull/app/blobs/{sha256(BLOB)}", Range=header)
    assert answer.status == 206
    assert answer.body == BLOB[first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/1000"
    assert answer.headers["Content-Length"] == str(last - first + 1)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=1000-",
        "bytes=500-0",
        "bytes=-0",
        "bytes=-",
        "bytes=a-b",
        "bytes=",
        "bytes=1-2-3",
        "bytes=99999999999999999999-",
    ],
)
def test_a_range_outside_or_malformed_is_416_and_does_not_carry_the_length(pulled, header):
    answer = pulled.get(f"/v2/pull/app/blobs/{sha256(BLOB)}", Range=header)
    assert (answer.status, answer.code) == (416, "SIZE_INVALID")
    assert answer.headers["Content-Range"] == "bytes */1000"
    assert answer.headers["Content-Length"] == str(len(answer.body))


@pytest.mark.parametrize("header", ["lines=1-2", "nonsense"])
def test_units_other_than_bytes_are_answered_whole(pulled, header):
    answer = pulled.get(f"/v2/pull/app/blobs/{sha256(BLOB)}", Range=header)
    assert (answer.status, answer.body) == (200, BLOB)


def test_if_range_of_another_content_is_answered_whole(pulled):
    path = f"/v2/pull/app/blobs/{sha256(BLOB)}"
    assert pulled.get(path, Range="bytes=0-9", If_Range='"sha256:other"').status == 200
    assert pulled.get(path, Range="bytes=0-9", If_Range=f'"{sha256(BLOB)}"').status == 206


@pytest.mark.parametrize("path", [f"blobs/{sha256(BLOB)}", "manifests/v1", f"manifests/{IMAGE.digest}"])
def test_if_none_match_is_304(pulled, path):
    etag = pulled.get(f"/v2/pull/app/{path}").headers["ETag"]
    for header in (etag, f'"other", W/{etag}', "*"):
        answer = pulled.get(f"/v2/pull/app/{path}", If_None_Match=header)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == etag
    assert pulled.get(f"/v2/pull/app/{path}", If_None_Match='"other"').status == 200


def test_a_large_blob_streams_whole_and_in_parts(alone, repository):
    content = images.image("large", layers=1, layer_bytes=3_500_000).blobs[1]
    digest = alone.client.push_blob(repository, content)
    assert alone.client.get(f"/v2/{repository}/blobs/{digest}").body == content
    answer = alone.client.get(f"/v2/{repository}/blobs/{digest}", Range="bytes=1000000-2999999")
    assert answer.body == content[1_000_000:3_000_000]


def test_an_empty_blob_can_be_pushed_and_pulled(client, repository):
    digest = client.push_blob(repository, b"")
    answer = client.get(f"/v2/{repository}/blobs/{digest}")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert client.get(f"/v2/{repository}/blobs/{digest}", Range="bytes=0-").status == 416


def test_a_blob_is_readable_only_where_it_is_linked(pulled, repository):
    path = f"/v2/{repository}/blobs/{sha256(BLOB)}"
    assert (pulled.get(path).status, pulled.get(path).code) == (404, "BLOB_UNKNOWN")
    absent = pulled.get(f"/v2/{repository}/blobs/{sha256(b'absent')}")
    assert absent.json()["errors"][0]["message"] == pulled.get(path).json()["errors"][0]["message"]


@pytest.mark.parametrize(("name", "status"), [("registry.example", 200), ("mirror.example", 200), ("docker.io", 404)])
def test_ns_is_served_for_our_own_names_alone(pulled, name, status):
    assert pulled.get(f"/v2/pull/app/manifests/v1?ns={name}").status == status


def test_a_sha512_tag_answers_sha512(client, repository):
    import hashlib

    digest = "sha512:" + hashlib.sha512(IMAGE.body).hexdigest()
    for blob in IMAGE.blobs:
        client.push_blob(repository, blob)
    answer = client.request(
        "PUT", f"/v2/{repository}/manifests/{digest}?tag=v512", IMAGE.body, {"Content-Type": images.OCI_IMAGE}
    )
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
    assert client.head(f"/v2/{repository}/manifests/v512").headers["Docker-Content-Digest"] == digest

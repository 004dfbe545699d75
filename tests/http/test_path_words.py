"""Repositories that are called by the words that paths are made of: names are read from a path's end."""

import pytest

from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.server import running_server

pytestmark = pytest.mark.slow

NAMES = [
    "blobs",
    "manifests",
    "referrers",
    "tags",
    "uploads",
    "v2",
    "blobs/uploads",
    "tags/list",
    "org/blobs/uploads",
    "org/manifests/app",
    "manifests/latest/blobs",
    "referrers/tags/list/uploads",
    "_".join(("blobs", "uploads")),
]
TAGS = ["blobs", "list", "manifests", "uploads", "v1"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An instance of a primary and a worker, whose fast path reads paths too."""
    with running_server(tmp_path_factory.mktemp("words") / "data", workers="2") as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_a_repository_called_by_path_words_takes_pushes_and_answers_pulls(server, name):
    client, image = server.client, images.image(name)
    assert client.get(f"/v2/{name}/tags/list").status == 404
    for tag in TAGS:
        client.push(name, tag, image)
        assert client.pull(name, tag) == image.body
        assert client.pull(name, tag) == image.body, "the fast path answers the second time"
        assert client.head(f"/v2/{name}/manifests/{tag}").headers["Docker-Content-Digest"] == image.digest
        assert client.get(f"/_concord/replication/{name}/{tag}").json()["digest"] == image.digest
    assert client.tags(name) == TAGS
    assert client.get(f"/v2/{name}/tags/list?n=2").json() == {"name": name, "tags": TAGS[:2]}
    signature = images.artifact(b"signature", "application/vnd.test.signature", image)
    client.push(name, signature.digest, signature)
    [referrer] = client.get(f"/v2/{name}/referrers/{image.digest}").json()["manifests"]
    assert referrer["digest"] == signature.digest
    assert client.delete(f"/v2/{name}/manifests/v1").status == 202
    assert client.tags(name) == TAGS[:-1]
    assert name in client.get("/v2/_catalog").json()["repositories"]


@pytest.mark.parametrize("name", NAMES)
def test_every_way_of_pushing_a_blob_works_in_a_repository_called_by_path_words(server, name):
    client = server.client
    for number, content in enumerate([f"{name} {way}".encode() for way in ("one request", "chunks", "cancelled")]):
        digest = sha256(content)
        if number == 0:
            answer = client.request("POST", with_digest(f"/v2/{name}/blobs/uploads/", digest), content)
            assert (answer.status, answer.headers["Location"]) == (201, f"/v2/{name}/blobs/{digest}")
        else:
            location = client.begin_upload(name)
            location = client.request("PATCH", location, content[:5]).headers["Location"]
            assert client.get(location).headers["Range"] == "0-4"
            if number == 1:
                assert client.request("PUT", with_digest(location, digest), content[5:]).status == 201
            else:
                assert client.delete(location).status == 204
        assert client.get(f"/v2/{name}/blobs/{digest}").status == (404 if number == 2 else 200)
    mount = f"/v2/{name}/mounted/blobs/uploads/?mount={sha256(f'{name} chunks'.encode())}&from={name}"
    assert client.request("POST", mount, b"").status == 201
    assert client.delete(f"/v2/{name}/blobs/{sha256(f'{name} chunks'.encode())}").status == 202

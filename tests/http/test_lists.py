"""Lists: tags, repositories, referrers."""

import json

import pytest

from tests.support import images
from tests.support.client import Client, sha256
from tests.support.server import running_server

IMAGE = images.image("lists")
TAGS = ["A", "B", "Z", "a", "a-1", "a.1", "a1", "a_1", "b"]


@pytest.fixture(scope="module")
def listed(alone) -> Client:
    for blob in IMAGE.blobs:
        alone.client.push_blob("lists/app", blob)
    query = "&".join(f"tag={tag}" for tag in TAGS)
    path = f"/v2/lists/app/manifests/{IMAGE.digest}?{query}"
    assert alone.client.request("PUT", path, IMAGE.body, {"Content-Type": IMAGE.media_type}).status == 201
    return alone.client


def follow(client, path, key):
    """All entries of a paged list, and the length of each page."""
    entries, pages = [], []
    while path:
        answer = client.get(path)
        assert answer.status == 200
        page = answer.json()[key]
        entries, pages = entries + page, [*pages, len(page)]
        link = answer.headers.get("Link")
        path = link[1 : link.index(">")] if link else None
        assert link is None or link.endswith('; rel="next"')
    return entries, pages


def test_tags_come_in_byte_order(listed):
    answer = listed.get("/v2/lists/app/tags/list")
    assert answer.json() == {"name": "lists/app", "tags": sorted(TAGS)}
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("count", [1, 2, 4, 9, 10, 10**6, 2**63])
def test_tags_by_pages(listed, count):
    tags, pages = follow(listed, f"/v2/lists/app/tags/list?n={count}", "tags")
    assert tags == sorted(TAGS)
    assert all(length == min(count, 9) for length in pages[:-1])


def test_n_zero_is_an_empty_list_without_a_link(listed):
    answer = listed.get("/v2/lists/app/tags/list?n=0")
    assert (answer.json()["tags"], answer.headers.get("Link")) == ([], None)


def test_no_link_when_nothing_more_comes(listed):
    assert listed.get("/v2/lists/app/tags/list?n=9").headers.get("Link") is None


@pytest.mark.parametrize("last", ["a", "Z", "aa", "", "zzz", "0"])
def test_last_is_exclusive_and_works_without_n(listed, last):
    answer = listed.get(f"/v2/lists/app/tags/list?last={last}")
    assert answer.json()["tags"] == [tag for tag in sorted(TAGS) if tag > last]


@pytest.mark.parametrize("count", ["-1", "x", "1.5", "", "%31%32x", "9" * 30])
def test_a_malformed_n_is_400(listed, count):
    assert listed.get(f"/v2/lists/app/tags/list?n={count}").status == 400


def test_tags_of_an_unknown_repository_are_404(client):
    answer = client.get("/v2/lists/unknown/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_tags_of_a_repository_without_tags_are_an_empty_list(client, repository):
    client.push_blob(repository, b"a blob")
    assert client.get(f"/v2/{repository}/tags/list").json() == {"name": repository, "tags": []}


def test_repositories_by_pages(tmp_path):
    names = ["a", "a/b", "a0", "b/c/d", "z"]
    with running_server(tmp_path / "data") as server:
        assert server.client.get("/v2/_catalog").json() == {"repositories": []}
        for name in names:
            server.client.push_blob(name, b"x")
        assert server.client.get("/v2/_catalog").json() == {"repositories": sorted(names)}
        assert follow(server.client, "/v2/_catalog?n=2", "repositories") == (sorted(names), [2, 2, 1])
        assert server.client.get("/v2/_catalog?last=a0").json() == {"repositories": ["b/c/d", "z"]}
        server.client.delete(f"/v2/z/blobs/{sha256(b'x')}")
        assert "z" not in server.client.get("/v2/_catalog").json()["repositories"]


# Referrers


def referrers(client, repository, digest, query=""):
    answer = client.get(f"/v2/{repository}/referrers/{digest}{query}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == images.OCI_INDEX
    return answer.json()["manifests"]


def test_referrers_of_the_unknown_are_an_empty_index(client, repository):
    answer = client.get(f"/v2/{repository}/referrers/{sha256(b'x')}")
    assert answer.json() == {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": []}


def test_referrers_of_a_malformed_digest_are_400(client, repository):
    assert client.get(f"/v2/{repository}/referrers/sha256:abc").code == "DIGEST_INVALID"


def test_referrers_carry_what_the_specification_says(client, repository):
    client.push(repository, "v1", IMAGE)
    sbom = images.artifact(b"{}sbom", "application/spdx+json", IMAGE, annotations={"k": "v"})
    plain = images.image("referring", subject=IMAGE.descriptor())
    index = images.index(subject=IMAGE.descriptor())
    for one in (sbom, plain, index):
        for blob in one.blobs:
            client.push_blob(repository, blob)
        answer = client.put_manifest(repository, one.digest, one.body, one.media_type)
        assert answer.headers["OCI-Subject"] == IMAGE.digest
    found = {entry["digest"]: entry for entry in referrers(client, repository, IMAGE.digest)}
    assert found[sbom.digest] == sbom.descriptor(artifactType="application/spdx+json", annotations={"k": "v"})
    assert found[plain.digest] == plain.descriptor(artifactType=images.OCI_CONFIG)
    assert found[index.digest] == index.descriptor()


def test_referrers_by_artifact_type(client, repository):
    for kind in ("a/one", "a/two"):
        client.push(repository, kind.replace("/", "-"), images.artifact(kind.encode(), kind, IMAGE))
    answer = client.get(f"/v2/{repository}/referrers/{IMAGE.digest}?artifactType=a/two")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert [entry["artifactType"] for entry in answer.json()["manifests"]] == ["a/two"]
    assert referrers(client, repository, IMAGE.digest, "?artifactType=a/none") == []


def test_a_deleted_referrer_is_not_listed(client, repository):
    digest = client.push(repository, "sbom", images.artifact(b"x", "a/b", IMAGE))
    client.delete(f"/v2/{repository}/manifests/{digest}")
    assert referrers(client, repository, IMAGE.digest) == []


def test_a_referrer_of_another_repository_is_not_listed(client, repository):
    client.push(f"{repository}-other", "sbom", images.artifact(b"y", "a/b", IMAGE))
    assert referrers(client, repository, IMAGE.digest) == []


def test_lists_pushed_under_the_tag_schema_are_included(client, repository):
    client.push(repository, "v1", IMAGE)
    old = images.artifact(b"old style", "application/old")
    client.push(repository, "old", old)
    listed = [old.descriptor(artifactType="application/old")]
    body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": listed}).encode()
    tag = IMAGE.digest.replace(":", "-")
    assert client.put_manifest(repository, tag, body, images.OCI_INDEX).status == 201
    new = images.artifact(b"new style", "application/new", IMAGE)
    client.push(repository, "new", new)
    digests = [entry["digest"] for entry in referrers(client, repository, IMAGE.digest)]
    assert digests == sorted([old.digest, new.digest])


def test_entries_of_a_list_whose_manifests_are_not_there_are_left_out(tmp_path):
    with running_server(tmp_path / "data", sparse="1") as server:
        there, absent = images.artifact(b"there", "a/b"), images.artifact(b"absent", "a/b")
        server.client.push("app", "there", there)
        listed = [there.descriptor(), absent.descriptor()]
        body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": listed}).encode()
        tag = IMAGE.digest.replace(":", "-")
        assert server.client.put_manifest("app", tag, body, images.OCI_INDEX).status == 201
        assert [entry["digest"] for entry in referrers(server.client, "app", IMAGE.digest)] == [there.digest]


def test_many_referrers_come_by_pages(client, repository):
    pushed = set()
    client.push_blob(repository, b"{}")
    client.push_blob(repository, b"many")
    for number in range(30):
        one = images.artifact(b"many", "a/b", IMAGE, annotations={"n": str(number), "pad": "x" * 100_000})
        assert client.put_manifest(repository, one.digest, one.body, one.media_type).status == 201
        pushed.add(one.digest)
    entries, pages = follow(client, f"/v2/{repository}/referrers/{IMAGE.digest}", "manifests")
    assert {entry["digest"] for entry in entries} == pushed
    assert len(entries) == 30
    assert len(pages) > 1
    filtered, _ = follow(client, f"/v2/{repository}/referrers/{IMAGE.digest}?artifactType=a/b", "manifests")
    assert len(filtered) == 30

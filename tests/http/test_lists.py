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
    assert [entry["digest"] for entry in referrers(client, repository, IMAGE.digest)] == [new.digest, old.digest]


def test_a_list_under_the_tag_schema_does_not_outrank_what_the_manifest_says(client, repository):
    """Anybody who may push a tag could else hide a signature, or give one another type."""
    client.push(repository, "v1", IMAGE)
    signature = images.artifact(b"signature", "application/signature", IMAGE, annotations={"who": "the manifest"})
    other = images.artifact(b"other", "application/other")
    for number, one in enumerate((signature, other)):
        client.push(repository, f"one-{number}", one)
    said = {"artifactType": "application/forged", "annotations": {"who": "the list"}}
    listed = [one.descriptor(**said) | {"size": 1, "mediaType": images.OCI_INDEX} for one in (signature, other)]
    body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": listed}).encode()
    assert client.put_manifest(repository, IMAGE.digest.replace(":", "-"), body, images.OCI_INDEX).status == 201
    found = {entry["digest"]: entry for entry in referrers(client, repository, IMAGE.digest)}
    genuine = signature.descriptor(artifactType="application/signature", annotations={"who": "the manifest"})
    assert found == {signature.digest: genuine, other.digest: other.descriptor(artifactType="application/other")}
    for kind, expected in (("application/signature", [genuine]), ("application/forged", [])):
        assert referrers(client, repository, IMAGE.digest, f"?artifactType={kind}") == expected


def test_entries_of_a_list_whose_manifests_are_not_there_are_left_out(tmp_path):
    with running_server(tmp_path / "data", sparse="1") as server:
        there, absent = images.artifact(b"there", "a/b"), images.artifact(b"absent", "a/b")
        server.client.push("app", "there", there)
        listed = [there.descriptor(), absent.descriptor()]
        body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": listed}).encode()
        tag = IMAGE.digest.replace(":", "-")
        assert server.client.put_manifest("app", tag, body, images.OCI_INDEX).status == 201
        assert [entry["digest"] for entry in referrers(server.client, "app", IMAGE.digest)] == [there.digest]


def push_referrers(client, repository, count, kind="a/b", pad=0):
    """Push artifacts one after the other. Answers their digests."""
    client.push_blob(repository, b"{}")
    client.push_blob(repository, b"many")
    pushed = []
    for number in range(count):
        one = images.artifact(b"many", kind, IMAGE, annotations={"n": str(number), "pad": "x" * pad})
        assert client.put_manifest(repository, one.digest, one.body, one.media_type).status == 201
        pushed.append(one.digest)
    return pushed


def test_referrers_come_on_one_page_while_they_fit_a_manifest_of_4_mib(client, repository):
    pushed = push_referrers(client, repository, 30, pad=100_000)
    path = f"/v2/{repository}/referrers/{IMAGE.digest}"
    entries, pages = follow(client, path, "manifests")
    assert ([entry["digest"] for entry in entries], pages) == (pushed[::-1], [30])
    assert len(client.get(path).body) <= 4 * 1024 * 1024
    more = push_referrers(client, repository, 20, "a/more", pad=100_000)
    entries, pages = follow(client, path, "manifests")
    assert [entry["digest"] for entry in entries] == [*more[::-1], *pushed[::-1]]
    assert len(pages) == 2 and pages[0] > 35
    filtered, pages = follow(client, f"{path}?artifactType=a/b", "manifests")
    assert ([entry["digest"] for entry in filtered], pages) == (pushed[::-1], [30])


@pytest.mark.slow
def test_referrers_are_filtered_before_the_list_is_cut(client, repository):
    """A signature is found however many others are pushed beside it: more than any page held before."""
    (signature,) = push_referrers(client, repository, 1, "application/signature")
    push_referrers(client, repository, 1200, "application/noise")
    path = f"/v2/{repository}/referrers/{IMAGE.digest}"
    answer = client.get(f"{path}?artifactType=application/signature")
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [signature]
    assert "Link" not in answer.headers
    assert len(client.get(path).json()["manifests"]) == 1201


@pytest.mark.parametrize("last", ["x", "", "0.0.0", "-1.0.0.", "0.0.0.sha256:abc", "0.0.0." + "a" * 300])
def test_a_malformed_position_in_a_list_of_referrers_is_400(client, repository, last):
    client.push(repository, "v1", IMAGE)
    answer = client.get(f"/v2/{repository}/referrers/{IMAGE.digest}?last={last}")
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")


def test_referrers_by_pages_are_each_once_and_newest_first(tmp_path):
    constants = {"registry.http.oci.referrers.PAGE_BYTES": 900, "registry.catalog.referrers.FEW": 5}
    with running_server(tmp_path / "data", constants=constants) as server:
        pushed = push_referrers(server.client, "app", 20)
        entries, pages = follow(server.client, f"/v2/app/referrers/{IMAGE.digest}", "manifests")
        assert [entry["digest"] for entry in entries] == pushed[::-1]
        assert len(pages) > 5

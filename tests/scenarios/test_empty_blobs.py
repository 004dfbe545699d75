"""Blobs of no bytes, across sites: pushed in every way, pulled, copied, referred to, mounted and collected."""

import hashlib
import json

import pytest

from tests.scenarios.test_collection import collect
from tests.scenarios.test_copies import holders
from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.server import running_cluster, wait_until

SHA256 = sha256(b"")
SHA512 = f"sha512:{hashlib.sha512(b'').hexdigest()}"


def by_put(client, repository, digest):
    algorithm = digest.partition(":")[0]
    location = client.begin_upload(repository, f"?digest-algorithm={algorithm}")
    return client.request("PUT", with_digest(location, digest), b"")


def by_post(client, repository, digest):
    return client.request("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", b"")


def by_empty_chunks(client, repository, digest):
    location = client.begin_upload(repository)
    for _ in range(2):
        patched = client.request("PATCH", location, iter([]))
        assert patched.status == 202, patched
        location = patched.headers["Location"]
    return client.request("PUT", with_digest(location, digest), b"")


@pytest.mark.parametrize("push", [by_put, by_post, by_empty_chunks])
@pytest.mark.parametrize("digest", [SHA256, SHA512], ids=["sha256", "sha512"])
def test_empty_blob_pushed_at_one_site_is_read_at_the_others(push, digest, three_sites, repository):
    eu, *others = (server.client for server in three_sites.servers)
    assert push(eu, repository, digest).status == 201
    three_sites.wait_agreed()
    path = f"/v2/{repository}/blobs/{digest}"
    for client in others:
        answer = client.get(path)
        assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
        assert answer.headers["Docker-Content-Digest"] == digest
        head = client.head(path)
        assert (head.status, head.headers["Content-Length"]) == (200, "0")
        assert client.get(path, Range="bytes=0-").status == 416
        mounted = client.request("POST", f"/v2/{repository}/copy/blobs/uploads/?mount={digest}&from={repository}", b"")
        assert mounted.status == 201


@pytest.mark.parametrize("digest", [sha256(b"0"), f"sha512:{hashlib.sha512(b'0').hexdigest()}"], ids=["256", "512"])
def test_empty_body_under_the_digest_of_another_content_is_refused(digest, three_sites, repository):
    eu, us, _ = (server.client for server in three_sites.servers)
    answer = by_put(eu, repository, digest)
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    three_sites.wait_agreed()
    assert us.head(f"/v2/{repository}/blobs/{digest}").status == 404


@pytest.mark.parametrize("digest", [SHA256, SHA512], ids=["sha256", "sha512"])
def test_empty_blob_that_a_manifest_names_is_copied_to_the_other_site_and_collected_after_it(digest, tmp_path):
    settings = {"copies": "2", "acknowledge": "2", "gc_grace_s": "0", "gc_interval_s": "0"}
    with running_cluster(tmp_path, ["eu", "us"], **settings) as cluster:
        eu, us = cluster.servers
        assert by_put(eu.client, "app", digest).status == 201
        image = images.image("beside an empty layer")
        for blob in image.blobs:
            eu.client.push_blob("app", blob)
        manifest = json.loads(image.body)
        manifest["layers"].append({"mediaType": images.OCI_LAYER, "digest": digest, "size": 0})
        body = json.dumps(manifest).encode()
        assert eu.client.put_manifest("app", "v1", body, images.OCI_IMAGE).status == 201
        cluster.wait_agreed()
        assert holders(cluster, digest) == [eu, us]
        assert collect(us)["removed"] == 0 and holders(cluster, digest) == [eu, us]
        assert us.client.get(f"/v2/app/blobs/{digest}").status == 200
        assert us.client.delete(f"/v2/app/manifests/{sha256(body)}").status == 202
        cluster.wait_agreed()
        collect(eu)
        collect(us)
        wait_until(lambda: not holders(cluster, digest))

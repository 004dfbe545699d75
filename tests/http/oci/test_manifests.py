"""Pushing and deleting manifests and tags."""

import json

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_server

IMAGE = images.image("manifests")


def put(client, repository, body, media_type=images.OCI_IMAGE, reference="v1"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.put_manifest(repository, reference, raw, media_type)


def push_blobs(client, repository, image):
    for blob in image.blobs:
        client.push_blob(repository, blob)


def fields(image, **changes):
    content = json.loads(image.body) | changes
    return {name: value for name, value in content.items() if value is not ...}


def test_put_answers_location_and_digest(client, repository):
    push_blobs(client, repository, IMAGE)
    answer = put(client, repository, IMAGE.body)
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, IMAGE.digest)
    assert client.get(answer.headers["Location"]).body == IMAGE.body


@pytest.mark.parametrize("media_type", [images.OCI_IMAGE, images.DOCKER_IMAGE])
def test_images_of_both_kinds(client, repository, media_type):
    image = images.image("kinds", media_type=media_type)
    client.push(repository, "v1", image)
    assert client.get(f"/v2/{repository}/manifests/v1").headers["Content-Type"] == media_type


@pytest.mark.parametrize("media_type", [images.OCI_INDEX, images.DOCKER_LIST])
def test_indexes_of_both_kinds(client, repository, media_type):
    index = images.index(images.image("a"), images.image("b"), media_type=media_type)
    client.push(repository, "v1", index)
    assert client.pull(repository, "v1") == index.body


def test_nested_and_empty_indexes(client, repository):
    inner = images.index(images.image("a"), images.image("b"))
    client.push(repository, "v1", images.index(inner, images.index()))
    client.pull(repository, "v1")


def test_parameters_of_the_content_type_are_ignored(client, repository):
    push_blobs(client, repository, IMAGE)
    assert put(client, repository, IMAGE.body, f"{images.OCI_IMAGE}; charset=utf-8").status == 201
    assert client.get(f"/v2/{repository}/manifests/v1").headers["Content-Type"] == images.OCI_IMAGE


@pytest.mark.parametrize(
    "more",
    [
        {"layers": []},
        {"annotations": {"a": "b"}, "unknown": {"x": [1, 2, 3]}},
        {"artifactType": "application/x"},
        {"subject": images.descriptor(b"missing", images.OCI_IMAGE)},
    ],
)
def test_unusual_images_are_accepted(client, repository, more):
    push_blobs(client, repository, IMAGE)
    assert put(client, repository, fields(IMAGE, **more)).status == 201


def test_foreign_layers_need_not_be_here(client, repository):
    push_blobs(client, repository, IMAGE)
    for media_type in (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ):
        for more in ({"urls": ["https://example.com/x"]}, {}):
            foreign = images.descriptor(b"elsewhere", media_type, **more)
            assert put(client, repository, fields(IMAGE, layers=[foreign])).status == 201


def test_a_layer_with_urls_has_to_be_here_unless_its_type_is_non_distributable(client, repository):
    push_blobs(client, repository, IMAGE)
    layer = images.descriptor(b"elsewhere", "application/vnd.oci.image.layer.v1.tar+gzip", urls=["https://example.com"])
    answer = put(client, repository, fields(IMAGE, layers=[layer]))
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert answer.json()["errors"][0]["detail"] == [{"digest": layer["digest"]}]


@pytest.mark.parametrize("more", [b',"Layers":[]}', b',"layers":[]}', b',"Config":null}', b',"SUBJECT":null}'])
def test_keys_that_readers_take_differently_are_refused(client, repository, more):
    push_blobs(client, repository, IMAGE)
    answer = put(client, repository, IMAGE.body[:-1] + more)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert client.get(f"/v2/{repository}/manifests/v1").status == 404


def test_keys_of_annotations_are_free(client, repository):
    push_blobs(client, repository, IMAGE)
    assert put(client, repository, fields(IMAGE, annotations={"layers": "1", "Layers": "2"})).status == 201


def test_one_blob_as_config_and_layer(client, repository):
    image = images.image("double", layers=0)
    push_blobs(client, repository, image)
    config = json.loads(image.body)["config"]
    assert put(client, repository, fields(image, layers=[config, config])).status == 201


def test_missing_parts_are_named_each(client, repository):
    push_blobs(client, repository, IMAGE)
    missing = [images.descriptor(content, "application/x") for content in (b"one missing", b"two missing")]
    answer = put(
        client, repository, fields(IMAGE, layers=[*missing, images.descriptor(IMAGE.blobs[1], "application/x")])
    )
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    detail = answer.json()["errors"][0]["detail"]
    assert [entry["digest"] for entry in detail] == [one["digest"] for one in missing]
    assert client.get(f"/v2/{repository}/manifests/v1").status == 404


def test_missing_children_are_named(client, repository):
    index = images.index(images.image("absent child"))
    answer = put(client, repository, index.body, images.OCI_INDEX)
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert answer.json()["errors"][0]["detail"] == [{"digest": index.children[0].digest}]


def test_a_blob_linked_elsewhere_is_missing_here(client, repository):
    push_blobs(client, f"{repository}-other", IMAGE)
    assert put(client, repository, IMAGE.body).code == "MANIFEST_BLOB_UNKNOWN"


def test_an_index_of_blobs_as_buildkit_exports_its_cache(client, repository):
    layers = [b"cache layer one", b"cache layer two"]
    config = b'{"layers":[]}'
    entries = [images.descriptor(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip") for layer in layers]
    entries.append(images.descriptor(config, "application/vnd.buildkit.cacheconfig.v0"))
    body = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}
    answer = put(client, repository, body, images.OCI_INDEX)
    assert (answer.status, len(answer.json()["errors"][0]["detail"])) == (404, 3)
    for content in (*layers, config):
        client.push_blob(repository, content)
    assert put(client, repository, body, images.OCI_INDEX).status == 201


@pytest.mark.parametrize(
    ("why", "body", "media_type"),
    [
        ("no JSON", b"not json", images.OCI_IMAGE),
        ("empty", b"", images.OCI_IMAGE),
        ("no object", b"[]", images.OCI_IMAGE),
        ("no UTF-8", IMAGE.body[:-1] + b', "x": "\xff"}', images.OCI_IMAGE),
        ("cut off", IMAGE.body[:-5], images.OCI_IMAGE),
        ("deep", b'{"schemaVersion":2,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", images.OCI_IMAGE),
        ("schema 1", fields(IMAGE, schemaVersion=1), images.OCI_IMAGE),
        ("no version", fields(IMAGE, schemaVersion=...), images.OCI_IMAGE),
        ("version as text", fields(IMAGE, schemaVersion="2"), images.OCI_IMAGE),
        ("no config", fields(IMAGE, config=...), images.OCI_IMAGE),
        ("config of another type", fields(IMAGE, config="x"), images.OCI_IMAGE),
        ("layers of another type", fields(IMAGE, layers={}), images.OCI_IMAGE),
        ("a digest that is none", fields(IMAGE, config={"digest": "x", "size": 1}), images.OCI_IMAGE),
        ("a digest with a path", fields(IMAGE, config={"digest": "sha256:../../etc", "size": 1}), images.OCI_IMAGE),
        ("a negative size", fields(IMAGE, config={"digest": sha256(b""), "size": -1}), images.OCI_IMAGE),
        ("a huge size", fields(IMAGE, config={"digest": sha256(b""), "size": 2**63}), images.OCI_IMAGE),
        ("no size", fields(IMAGE, config={"digest": sha256(b"")}), images.OCI_IMAGE),
        ("image and index", fields(IMAGE, manifests=[]), images.OCI_IMAGE),
        ("index and image", fields(images.index(), layers=[]), images.OCI_INDEX),
        ("index with a config", fields(images.index(), config={"digest": sha256(b""), "size": 1}), images.OCI_INDEX),
        ("index without a list", fields(images.index(), manifests=...), images.OCI_INDEX),
        ("another media type inside", IMAGE.body, images.DOCKER_IMAGE),
        ("an image called an index", fields(IMAGE, mediaType=...), images.OCI_INDEX),
        ("an unknown media type", fields(IMAGE, mediaType=...), "application/x"),
        ("Docker's schema 1", b"{}", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ("annotations of another type", fields(IMAGE, annotations={"a": 1}), images.OCI_IMAGE),
        ("a malformed subject", fields(IMAGE, subject={"digest": "x", "size": 1}), images.OCI_IMAGE),
    ],
)
def test_a_bad_manifest_is_400_and_changes_nothing(client, repository, why, body, media_type):
    push_blobs(client, repository, IMAGE)
    answer = put(client, repository, body, media_type)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert client.get(f"/v2/{repository}/manifests/v1").status == 404


def test_schema_1_is_refused_with_words_that_say_so(client, repository):
    answer = put(client, repository, b"{}", "application/vnd.docker.distribution.manifest.v1+json")
    assert "schema 1" in answer.json()["errors"][0]["message"]


def test_4_mib_is_accepted_and_more_is_413(client, repository):
    push_blobs(client, repository, IMAGE)
    body = json.dumps(fields(IMAGE, annotations={"x": ""})).encode()
    largest = body.replace(b'"x": ""', b'"x": "' + b"y" * (4 * 1024 * 1024 - len(body)) + b'"')
    assert len(largest) == 4 * 1024 * 1024
    assert put(client, repository, largest).status == 201
    assert client.get(f"/v2/{repository}/manifests/v1").body == largest
    answer = put(client, repository, largest + b" ", reference="v2")
    assert (answer.status, answer.code) == (413, "MANIFEST_INVALID")
    chunked = client.request(
        "PUT", f"/v2/{repository}/manifests/v2", iter([largest, b"  "]), {"Content-Type": images.OCI_IMAGE}
    )
    assert chunked.status == 413
    assert client.tags(repository) == ["v1"]


def test_a_digest_that_does_not_match_is_400(client, repository):
    push_blobs(client, repository, IMAGE)
    answer = put(client, repository, IMAGE.body, reference=sha256(b"other"))
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("reference", ["-x", ".x", "x" * 129, "x%20y", "x%00", "%E2%82%AC", "a%0a", "v1%5c"])
def test_a_malformed_tag_is_400(client, repository, reference):
    push_blobs(client, repository, IMAGE)
    answer = put(client, repository, IMAGE.body, reference=reference)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("reference", ["sha256:abc", "sha256:" + "g" * 64, "x:y", "sha512:" + "a" * 64])
def test_a_malformed_digest_is_400(client, repository, reference):
    for method in ("PUT", "GET", "DELETE"):
        answer = client.request(method, f"/v2/{repository}/manifests/{reference}", b"{}" if method == "PUT" else None)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_several_tags_in_one_put(client, repository):
    push_blobs(client, repository, IMAGE)
    query = "&".join(f"tag=v{number}" for number in range(12))
    answer = put(client, repository, IMAGE.body, reference=f"{IMAGE.digest}?{query}&tag=v0")
    assert answer.status == 201
    assert {tag for line in answer.headers.get_all("OCI-Tag") for tag in line.split(", ")} == set(
        client.tags(repository)
    )
    assert len(client.tags(repository)) == 12


def test_one_bad_tag_of_several_changes_nothing(client, repository):
    push_blobs(client, repository, IMAGE)
    answer = put(client, repository, IMAGE.body, reference=f"{IMAGE.digest}?tag=good&tag=-bad")
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert client.get(f"/v2/{repository}/manifests/good").status == 404


def test_too_many_tags_are_414(client, repository):
    query = "&".join(f"tag=v{number}" for number in range(101))
    assert put(client, repository, IMAGE.body, reference=f"{IMAGE.digest}?{query}").status == 414


def test_retagging_moves_the_tag_and_keeps_the_old_manifest(client, repository):
    old, new = images.image("old"), images.image("new")
    client.push(repository, "v1", old)
    client.push(repository, "v1", new)
    assert client.get(f"/v2/{repository}/manifests/v1").body == new.body
    assert client.get(f"/v2/{repository}/manifests/{old.digest}").body == old.body


def test_deleting_a_tag_leaves_the_manifest_and_other_tags(client, repository):
    client.push(repository, "v1", IMAGE)
    put(client, repository, IMAGE.body, reference="v2")
    assert client.delete(f"/v2/{repository}/manifests/v1").status == 202
    assert client.head(f"/v2/{repository}/manifests/v1").status == 404
    assert client.tags(repository) == ["v2"]
    assert client.get(f"/v2/{repository}/manifests/{IMAGE.digest}").status == 200


def test_deleting_a_manifest_deletes_its_tags(client, repository):
    other = images.image("other")
    client.push(repository, "v1", IMAGE)
    put(client, repository, IMAGE.body, reference="v2")
    client.push(repository, "v3", other)
    assert client.delete(f"/v2/{repository}/manifests/{IMAGE.digest}").status == 202
    for reference in ("v1", "v2", IMAGE.digest):
        assert client.get(f"/v2/{repository}/manifests/{reference}").code == "MANIFEST_UNKNOWN"
    assert client.tags(repository) == ["v3"]


@pytest.mark.parametrize("reference", ["nothing", sha256(b"nothing")])
def test_deleting_what_is_not_there_is_404(client, repository, reference):
    answer = client.delete(f"/v2/{repository}/manifests/{reference}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_can_be_pushed_again_after_its_delete(client, repository):
    client.push(repository, "v1", IMAGE)
    client.delete(f"/v2/{repository}/manifests/{IMAGE.digest}")
    client.push(repository, "v1", IMAGE)
    assert client.pull(repository, "v1") == IMAGE.body


def test_shared_nested_indexes_cost_no_more_than_their_number(client, repository):
    """Thirty levels, each naming the one below twice: 2^30 paths, 31 manifests."""
    at = images.image("leaf")
    client.push(repository, "leaf", at)
    for _ in range(30):
        entries = [at.descriptor(), at.descriptor(platform={"os": "linux", "architecture": "x"})]
        body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}).encode()
        at = images.Image(body, images.OCI_INDEX)
        assert put(client, repository, body, images.OCI_INDEX, at.digest).status == 201
    assert put(client, repository, at.body, images.OCI_INDEX, "bomb").status == 201


def test_an_index_that_stands_on_more_parts_than_can_be_looked_up_is_400(tmp_path):
    with running_server(tmp_path / "data", sparse="1") as server:
        children = []
        for number in range(3):
            layers = [images.descriptor(b"%d %d" % (number, layer), "a/b") for layer in range(4_000)]
            body = json.dumps(fields(images.image(number), layers=layers)).encode()
            digest = sha256(body)
            assert put(server.client, "app", body, images.OCI_IMAGE).status == 201
            children.append({"mediaType": images.OCI_IMAGE, "digest": digest, "size": len(body)})
        body = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": children}).encode()
        answer = put(server.client, "app", body, images.OCI_INDEX)
        assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")

"""What a manifest that is pushed may say."""

import json

import pytest

from registry.errors import ManifestInvalid
from registry.oci.json_objects import AmbiguousKeys
from registry.oci.manifest import OCI_IMAGE, OCI_INDEX, parse_manifest

D = [f"sha256:{number:064x}" for number in range(10)]
PART = {"mediaType": "x", "digest": D[0], "size": 1}
IMAGE = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": PART, "layers": [PART]}
INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [PART | {"mediaType": OCI_IMAGE}]}


def raw(content):
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        IMAGE | {"Layers": []},
        IMAGE | {"SchemaVersion": 2},
        IMAGE | {"MEDIATYPE": OCI_IMAGE},
        IMAGE | {"Manifests": []},
        IMAGE | {"Config": PART},
        IMAGE | {"Subject": PART},
        IMAGE | {"ArtifactType": "x/y"},
        IMAGE | {"Annotations": {}},
        IMAGE | {"config": PART | {"Digest": D[1]}},
        IMAGE | {"subject": PART | {"Size": 2}},
        IMAGE | {"layers": [PART, PART | {"Urls": []}]},
        IMAGE | {"layers": [PART | {"MediaType": "y"}]},
        IMAGE | {"layers": [PART | {"Data": "y"}]},
        INDEX | {"manifests": [PART | {"Platform": {}}]},
        INDEX | {"manifests": [PART | {"platform": {"architecture": "arm", "Architecture": "amd64"}}]},
        INDEX | {"manifests": [PART | {"platform": {"OS.version": "1"}}]},
    ],
    ids=lambda content: raw(content).decode()[:200][-40:],
)
def test_a_key_that_differs_from_a_known_one_by_case_alone_is_refused(content):
    with pytest.raises(AmbiguousKeys) as raised:
        parse_manifest(raw(content), None)
    assert raised.value.code == "MANIFEST_INVALID" and raised.value.status == 400
    assert raised.value.detail["key"] in raised.value.message


@pytest.mark.parametrize(
    "content",
    [
        raw(IMAGE)[:-1] + b',"layers":[]}',
        raw(IMAGE)[:-1] + b',"unknown":1,"unknown":1}',
        raw(IMAGE).replace(b'"size": 1', b'"size": 1, "size": 1', 1),
        raw(IMAGE).replace(b'"size": 1}]', b'"size": 1, "digest": "' + D[0].encode() + b'"}]'),
    ],
)
def test_a_key_that_is_there_twice_is_refused(content):
    with pytest.raises(AmbiguousKeys):
        parse_manifest(content, None)


@pytest.mark.parametrize(
    "content",
    [
        IMAGE | {"annotations": {"a": "1", "A": "2", "Layers": "3"}},
        IMAGE | {"layers": [PART | {"annotations": {"digest": "1", "Digest": "2"}}]},
        IMAGE | {"labels": {"x": 1, "X": 2}, "layer": 1, "Extra": {"Layers": 1, "layers": 2}},
        INDEX | {"manifests": [PART | {"mediaType": OCI_IMAGE, "platform": {"architecture": "arm", "os": "linux"}}]},
        INDEX | {"manifests": [PART | {"mediaType": OCI_IMAGE, "platform": None}], "subject": None},
    ],
)
def test_other_keys_are_free(content):
    assert parse_manifest(raw(content), None).parts()


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ],
)
@pytest.mark.parametrize("urls", [{}, {"urls": []}, {"urls": ["https://example.com/layer"]}])
def test_a_layer_of_a_non_distributable_type_need_not_be_there(media_type, urls):
    manifest = parse_manifest(raw(IMAGE | {"layers": [PART | {"digest": D[1], "mediaType": media_type} | urls]}), None)
    assert {part.digest: part.required for part in manifest.blobs} == {D[0]: True, D[1]: False}


@pytest.mark.parametrize("media_type", ["application/vnd.oci.image.layer.v1.tar+gzip", "x", ""])
def test_a_layer_of_another_type_has_to_be_there_whatever_its_urls(media_type):
    layer = PART | {"digest": D[1], "mediaType": media_type, "urls": ["https://example.com/layer"]}
    assert all(part.required for part in parse_manifest(raw(IMAGE | {"layers": [layer]}), None).blobs)


def test_a_part_that_is_required_in_one_role_is_required():
    foreign = PART | {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
    assert [part.required for part in parse_manifest(raw(IMAGE | {"layers": [foreign]}), None).parts()] == [True]


def test_urls_that_are_no_list_are_refused():
    with pytest.raises(ManifestInvalid):
        parse_manifest(raw(IMAGE | {"layers": [PART | {"urls": 7}]}), None)

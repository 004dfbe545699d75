"""What collection keeps for a manifest that is stored, whatever reader it was made for."""

import json

import pytest

from registry.errors import ManifestInvalid
from registry.event_loop.steps import run_to_completion
from registry.oci.manifest import DOCKER_LIST, OCI_IMAGE, OCI_INDEX, parse_manifest
from registry.oci.stored_manifest import UNREADABLE, read_stored

D = [f"sha256:{number:064x}" for number in range(10)]


def part(number, **more):
    return json.dumps({"mediaType": "x", "digest": D[number], "size": 1} | more)


def body(*members, media_type=OCI_IMAGE):
    return ("{" + ",".join(['"schemaVersion":2', f'"mediaType":"{media_type}"', *members]) + "}").encode()


def read(content, media_type=OCI_IMAGE):
    return run_to_completion(read_stored(content, media_type))


def blobs(content, media_type=OCI_IMAGE):
    return [part.digest for part in read(content, media_type).blobs]


AMBIGUOUS = {
    "beside": body(f'"config":{part(0)}', f'"layers":[{part(1)}]', f'"Layers":[{part(2)}]'),
    "in place": body(f'"config":{part(0)}', f'"LAYERS":[{part(1)},{part(2)}]'),
    "twice": body(f'"config":{part(0)}', f'"layers":[{part(1)}]', f'"layers":[{part(2)}]'),
    "config": body(f'"config":{part(0)}', f'"layers":[{part(1)}]', f'"Config":{part(2)}'),
    "digest": body(f'"config":{part(0)}', '"layers":[' + part(1)[:-1] + f',"Digest":"{D[2]}"}}]'),
    "digest twice": body(f'"config":{part(0)}', '"layers":[' + part(1)[:-1] + f',"digest":"{D[2]}"}}]'),
}


@pytest.mark.parametrize("why", AMBIGUOUS)
def test_a_stored_image_with_ambiguous_keys_keeps_what_any_reader_pulls(why):
    with pytest.raises(ManifestInvalid):
        parse_manifest(AMBIGUOUS[why], OCI_IMAGE)
    assert set(blobs(AMBIGUOUS[why])) == set(D[:3])


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_a_stored_index_with_ambiguous_keys_keeps_children_and_blobs(media_type):
    image = json.dumps({"mediaType": OCI_IMAGE, "digest": D[1], "size": 1})
    both = json.dumps({"mediaType": OCI_IMAGE, "MediaType": "x", "digest": D[3], "size": 1})
    content = body(f'"manifests":[{image}]', f'"Manifests":[{part(2)},{both}]', media_type=media_type)
    found = read(content, media_type)
    assert {part.digest for part in found.children} == {D[1], D[3]}
    assert {part.digest for part in found.blobs} == {D[2], D[3]}


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"no json", OCI_IMAGE),
        (b"[]", OCI_IMAGE),
        (body(f'"config":{part(0)}', '"layers":7', '"Layers":[]'), OCI_IMAGE),
        (body(f'"config":{part(0)}', '"Layers":[{"size":1}]'), OCI_IMAGE),
        (body(f'"config":{part(0)}', '"layers":[]', '"SCHEMAVERSION":3'), OCI_IMAGE),
        (
            body(f'"config":{part(0)}', '"layers":[]', media_type="application/vnd.later+json"),
            "application/vnd.later+json",
        ),
    ],
)
def test_what_cannot_be_read_may_refer_to_anything(content, media_type):
    assert blobs(content, media_type) == [UNREADABLE]


def test_a_stored_manifest_without_ambiguity_is_read_as_a_pushed_one():
    content = body(f'"config":{part(0)}', f'"layers":[{part(1)}]', '"annotations":{"a":"1","A":"2"}')
    assert read(content) == parse_manifest(content, OCI_IMAGE)

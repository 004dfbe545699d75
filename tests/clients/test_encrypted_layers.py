"""Images encrypted by skopeo (ocicrypt): pushed at one site, decrypted from another with the right key alone."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.clients.test_push_here_pull_there import await_tag
from tests.support.engines import Failed, run

SECRET = "the content of a secret layer"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, Path]:
    """Private keys by name, each with its public key beside it."""
    directory = tmp_path_factory.mktemp("keys")
    made = {}
    for name in ("right", "wrong"):
        made[name] = directory / f"{name}.pem"
        openssl = (
            ["openssl", "genrsa", "-out", str(made[name]), "2048"],
            [*("openssl", "rsa", "-in", str(made[name]), "-pubout", "-out", str(made[name].with_suffix(".pub")))],
        )
        for command in openssl:
            subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture
def encrypted(skopeo, keys, three_sites, repository) -> str:
    """The reference, at the second site, of an image that was encrypted for the right key at the first one."""
    public = keys["right"].with_suffix(".pub")
    skopeo.push(skopeo.build(SECRET), f"{three_sites[0].address}/{repository}:v1", "--encryption-key", f"jwe:{public}")
    await_tag(three_sites, repository)
    return f"docker://{three_sites[1].address}/{repository}:v1"


def decrypt(reference: str, directory: Path, key: Path) -> dict:
    """Pull and decrypt into a layout. Return the manifest."""
    target = f"oci:{directory}:app"
    run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--decryption-key", str(key), reference, target])
    return json.loads(run(["skopeo", "inspect", "--raw", target]))


def test_encrypted_layer_with_the_right_key_is_decrypted_from_another_site(encrypted, keys, tmp_path):
    manifest = decrypt(encrypted, tmp_path / "decrypted", keys["right"])
    (layer,) = manifest["layers"]
    assert "encrypted" not in layer["mediaType"]
    with tarfile.open(tmp_path / "decrypted" / "blobs" / layer["digest"].replace(":", "/")) as tar:
        assert tar.extractfile("version").read().decode() == SECRET


def test_encrypted_layer_with_the_wrong_key_is_refused_by_the_client(encrypted, keys, tmp_path):
    with pytest.raises(Failed, match="no suitable key"):
        decrypt(encrypted, tmp_path / "decrypted", keys["wrong"])


def test_encrypted_layer_is_served_as_it_was_pushed(encrypted, three_sites, repository):
    """The registry has no key: media types, annotations and bytes are the client's at every site."""
    eu, us, ap = (server.client for server in three_sites.servers)
    body = eu.pull(repository, "v1")
    (layer,) = json.loads(body)["layers"]
    assert layer["mediaType"].endswith("+encrypted")
    assert any(name.startswith("org.opencontainers.image.enc.") for name in layer["annotations"])
    path = f"/v2/{repository}/blobs/{layer['digest']}"
    ciphertext = eu.get(path).body
    assert len(ciphertext) == layer["size"] and SECRET.encode() not in ciphertext
    for other in (us, ap):
        assert other.pull(repository, "v1") == body
        assert other.get(path).body == ciphertext

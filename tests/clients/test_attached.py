"""Signatures, attestations and other artifacts that clients attach to an image at one site and find from another."""

import json
import os

import pytest

from tests.clients.test_push_here_pull_there import await_tag
from tests.support import images
from tests.support.engines import Failed, run
from tests.support.needs import need_go_client

ORAS_TYPE = "application/vnd.example.report"


@pytest.fixture
def pushed(three_sites, repository) -> images.Image:
    """An image that every site knows as v1."""
    image = images.image(repository)
    three_sites[0].client.push(repository, "v1", image)
    await_tag(three_sites, repository)
    return image


@pytest.fixture
def oras(tmp_path):
    """Run oras without anybody's settings. Return what it prints."""
    path = need_go_client("oras", "oras.land/oras/cmd/oras")
    return lambda *words: run([path, *words], env=os.environ | {"HOME": str(tmp_path)}, cwd=tmp_path)


@pytest.fixture(params=["v1.1-referrers-api", "v1.1-referrers-tag"])
def attached(request, oras, pushed, three_sites, repository, tmp_path) -> str:
    """The digest of a report that oras attached at the first site: by the referrers API, or with a tag's list."""
    (tmp_path / "report.txt").write_text("no faults found")
    subject, mode = f"{three_sites[0].address}/{repository}:v1", ("--distribution-spec", request.param)
    options = "--plain-http", "--artifact-type", ORAS_TYPE, "--format", "json"
    answer = json.loads(oras("attach", *options, *mode, "--annotation", "by=oras", subject, "report.txt"))
    three_sites.wait_agreed()
    listed = pushed.digest.replace(":", "-") in three_sites[1].client.tags(repository)
    assert listed == (request.param == "v1.1-referrers-tag")
    return answer["digest"]


def test_artifact_attached_by_oras_is_discovered_from_another_site(attached, oras, three_sites, repository):
    found = json.loads(
        oras("discover", "--plain-http", "--format", "json", f"{three_sites[1].address}/{repository}:v1")
    )
    (entry,) = found["manifests"]
    assert (entry["digest"], entry["artifactType"], entry["annotations"]["by"]) == (attached, ORAS_TYPE, "oras")


def test_artifact_attached_by_oras_is_copied_with_its_image(attached, oras, pushed, three_sites, repository, tmp_path):
    _, us, ap = (server.address for server in three_sites.servers)
    insecure = "--from-plain-http", "--to-plain-http"
    oras("copy", "--recursive", *insecure, f"{us}/{repository}:v1", f"{ap}/{repository}/copy:v1")
    three_sites.wait_agreed()
    eu = three_sites[0]
    (entry,) = eu.client.get(f"/v2/{repository}/copy/referrers/{pushed.digest}").json()["manifests"]
    assert entry["digest"] == attached
    oras("pull", "--plain-http", f"{eu.address}/{repository}/copy@{attached}", "--output", str(tmp_path / "out"))
    assert (tmp_path / "out" / "report.txt").read_text() == "no faults found"


@pytest.fixture
def cosign(tmp_path):
    """Run cosign with keys of its own, without Sigstore's services. Return what it prints."""
    path = need_go_client("cosign", "github.com/sigstore/cosign/v2/cmd/cosign")
    nowhere = {f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS")} | {"NO_PROXY": "127.0.0.1"}
    environment = os.environ | nowhere | {"HOME": str(tmp_path), "COSIGN_PASSWORD": "", "COSIGN_EXPERIMENTAL": "1"}

    def command(*words):
        return run([path, *words], env=environment, cwd=tmp_path)

    for name in ("right", "wrong"):
        command("generate-key-pair", "--output-key-prefix", name)
    return command


def sign(cosign, reference, *options):
    cosign("sign", "--yes", "--key", "right.key", "--tlog-upload=false", "--allow-http-registry", *options, reference)


def verify(cosign, reference, key, *options):
    cosign("verify", "--key", f"{key}.pub", "--insecure-ignore-tlog", "--allow-http-registry", *options, reference)


def by_tag(cosign, reference, digest, client, repository):
    """A tag of the image's digest names the signature."""
    sign(cosign, reference)
    assert f"{digest.replace(':', '-')}.sig" in client.tags(repository)
    return ()


def by_referrers(cosign, reference, digest, client, repository):
    """The signature has the image as its subject, and no tag."""
    sign(cosign, reference, "--registry-referrers-mode=oci-1-1")
    (entry,) = client.get(f"/v2/{repository}/referrers/{digest}").json()["manifests"]
    assert entry["artifactType"] == "application/vnd.dev.cosign.artifact.sig.v1+json"
    assert client.tags(repository) == ["v1"]
    return ("--experimental-oci11",)


@pytest.mark.parametrize("way", [by_tag, by_referrers])
def test_signature_by_cosign_is_verified_from_another_site(way, cosign, pushed, three_sites, repository):
    eu, us, _ = three_sites.servers
    image = f"{us.address}/{repository}@{pushed.digest}"
    with pytest.raises(Failed, match="no signatures found"):
        verify(cosign, image, "right")
    options = way(cosign, f"{eu.address}/{repository}@{pushed.digest}", pushed.digest, eu.client, repository)
    three_sites.wait_agreed()
    verify(cosign, image, "right", *options)
    with pytest.raises(Failed, match=r"invalid signature|no signatures found"):
        verify(cosign, image, "wrong", *options)


def test_artifact_attached_by_cosign_is_a_referrer_at_another_site(cosign, pushed, three_sites, repository, tmp_path):
    """An SBOM as an artifact of OCI 1.1, whose type is that of its config."""
    eu, us, _ = three_sites.servers
    sbom = b'{"spdxVersion": "SPDX-2.3"}'
    (tmp_path / "sbom.json").write_bytes(sbom)
    options = "--sbom", "sbom.json", "--type", "spdx", "--input-format", "json", "--allow-http-registry"
    image = f"{eu.address}/{repository}@{pushed.digest}"
    cosign("attach", "sbom", *options, "--registry-referrers-mode=oci-1-1", image)
    three_sites.wait_agreed()
    (entry,) = us.client.get(f"/v2/{repository}/referrers/{pushed.digest}").json()["manifests"]
    assert entry["artifactType"] == "application/vnd.dev.cosign.artifact.sbom.v1+json"
    manifest = json.loads(us.client.pull(repository, entry["digest"]))
    assert manifest["subject"]["digest"] == pushed.digest
    (layer,) = manifest["layers"]
    assert us.client.get(f"/v2/{repository}/blobs/{layer['digest']}").body == sbom

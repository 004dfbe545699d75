"""Signatures, attestations and other artifacts that clients attach to an image at one site and find from another."""

import json
import os

import pytest

from tests.clients.test_push_here_pull_there import await_tag
from tests.support import images
from tests.support.engines import run
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

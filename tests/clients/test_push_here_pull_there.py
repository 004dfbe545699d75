"""The main job with real clients: push at one site, pull at another."""

import json
import os
from pathlib import Path

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.engines import run
from tests.support.layouts import write_layout
from tests.support.needs import need
from tests.support.server import wait_until


@pytest.fixture
def sites(three_sites):
    return [server.address for server in three_sites.servers]


def await_tag(three_sites, repository, tag="v1"):
    """Across sites nothing waits: a moment later it is everywhere."""
    for server in three_sites.servers:
        path = f"/v2/{repository}/manifests/{tag}"
        wait_until(lambda server=server, path=path: server.client.head(path).status == 200)


def test_push_at_one_site_pull_and_run_from_another(engine, sites, three_sites, repository):
    eu, us, _ = sites
    image = engine.build("one", runnable=True)
    built = engine.image_id(image)
    engine.push(image, f"{eu}/{repository}:v1")
    engine.forget(image)
    await_tag(three_sites, repository)
    assert engine.pull(f"{us}/{repository}:v1") == built
    if engine.name != "skopeo":
        assert engine.run(f"{us}/{repository}:v1") == "one"
        engine.forget(f"{us}/{repository}:v1")


@pytest.mark.parametrize("pulling", ["docker", "podman", "buildah", "skopeo"])
def test_what_one_client_pushed_another_pulls(engine, engines, pulling, sites, three_sites, repository):
    eu, _, ap = sites
    image = engine.build(f"for-{pulling}")
    built = engine.image_id(image)
    engine.push(image, f"{eu}/{repository}:v1")
    engine.forget(image)
    await_tag(three_sites, repository)
    puller = engines(pulling)
    assert puller.pull(f"{ap}/{repository}:v1") == built
    if pulling != "skopeo":
        puller.forget(f"{ap}/{repository}:v1")


def test_a_multi_platform_index_by_buildah(buildah, skopeo, docker, sites, three_sites, repository):
    eu, us, ap = sites
    listed = f"localhost/{repository}:list"
    buildah._run("manifest", "create", listed)
    for architecture in ("amd64", "arm64"):
        image = buildah.build(architecture)
        buildah._run("manifest", "add", "--arch", architecture, listed, image)
    buildah._run("manifest", "push", "--all", "--tls-verify=false", listed, f"docker://{eu}/{repository}:v1")
    await_tag(three_sites, repository)
    index = json.loads(run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{us}/{repository}:v1"]))
    assert {entry["platform"]["architecture"] for entry in index["manifests"]} == {"amd64", "arm64"}
    run(
        [
            *("skopeo", "copy", "--quiet", "--all", "--src-tls-verify=false", f"docker://{us}/{repository}:v1"),
            f"oci:{skopeo.directory / 'index'}:app",
        ]
    )
    docker.pull(f"{ap}/{repository}:v1")
    docker.forget(f"{ap}/{repository}:v1")


def test_an_index_by_podman(podman, sites, three_sites, repository):
    eu, us, _ = sites
    listed = f"localhost/{repository}:list"
    podman.push(podman.build("in-a-list"), f"{eu}/{repository}:single")
    podman._run("manifest", "create", listed)
    podman._run("manifest", "add", "--tls-verify=false", listed, f"docker://{eu}/{repository}:single")
    podman._run("manifest", "push", "--all", "--tls-verify=false", listed, f"docker://{eu}/{repository}:v1")
    await_tag(three_sites, repository)
    podman.pull(f"{us}/{repository}:v1")


def test_skopeo_copies_all_of_an_index_between_sites(skopeo, sites, three_sites, repository, tmp_path):
    eu, us, ap = sites
    index = images.index(images.image("sk-a"), images.image("sk-b"))
    layout = write_layout(tmp_path / "layout", index)
    skopeo.push(f"oci:{layout}:app", f"{eu}/{repository}:v1", "--all", "--preserve-digests")
    await_tag(three_sites, repository)
    source, target = f"docker://{us}/{repository}:v1", f"docker://{ap}/{repository}-copy:v1"
    insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    run(["skopeo", "copy", "--quiet", "--all", "--preserve-digests", *insecure, source, target])
    assert three_sites[2].client.pull(f"{repository}-copy", "v1") == index.body


def test_zstd_layers(podman, skopeo, sites, three_sites, repository):
    eu, us, _ = sites
    image = podman.build("zstd")
    podman.push(image, f"{eu}/{repository}:v1", "--compression-format", "zstd", "--format", "oci")
    await_tag(three_sites, repository)
    manifest = json.loads(run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{us}/{repository}:v1"]))
    assert manifest["layers"][0]["mediaType"].endswith("+zstd")
    podman.forget(image)
    podman.pull(f"{us}/{repository}:v1")


def test_an_image_with_an_sbom_and_a_cache_index_of_blobs(three_sites, repository):
    eu, us, _ = (server.client for server in three_sites.servers)
    image = images.image(repository)
    sbom = images.artifact(b'{"spdxVersion": "SPDX-2.3"}', "application/spdx+json", image)
    eu.push(repository, "v1", image)
    eu.push(repository, "sbom", sbom)
    layers = [b"cache one", b"cache two"]
    entries = [images.descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers]
    entries.append(images.descriptor(b"{}", "application/vnd.buildkit.cacheconfig.v0"))
    for content in (*layers, b"{}"):
        eu.push_blob(repository, content)
    cache = json.dumps({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries}).encode()
    assert eu.put_manifest(repository, "cache", cache, images.OCI_INDEX).status == 201
    await_tag(three_sites, repository, "cache")
    (found,) = us.get(f"/v2/{repository}/referrers/{image.digest}").json()["manifests"]
    assert (found["digest"], found["artifactType"]) == (sbom.digest, "application/spdx+json")
    assert us.pull(repository, found["digest"]) == sbom.body
    assert us.get(f"/v2/{repository}/manifests/cache").body == cache
    for content in (*layers, b"{}"):
        assert us.get(f"/v2/{repository}/blobs/{sha256(content)}").body == content


def oras_client():
    try:
        import oras.client
    except ImportError:
        need(False, "the Python package oras is missing")
    return oras.client.OrasClient(insecure=True)


def test_an_artifact_by_an_oras_client(sites, three_sites, repository, tmp_path):
    client = oras_client()
    eu, us, _ = sites
    (tmp_path / "artifact.txt").write_text("an artifact")
    client.push(target=f"{eu}/{repository}:v1", files=[str(tmp_path / "artifact.txt")], disable_path_validation=True)
    await_tag(three_sites, repository)
    pulled = client.pull(target=f"{us}/{repository}:v1", outdir=str(tmp_path / "out"))
    assert [Path(path).read_text() for path in pulled] == ["an artifact"]


@pytest.mark.parametrize("last_bytes", [1, 40_000])
def test_a_chunked_upload_by_an_oras_client_arrives_whole(last_bytes, three_sites, repository, tmp_path, monkeypatch):
    """POST, a PATCH with Content-Range for each chunk, and PUT. The last chunk is short, or as long as the others."""
    oras = oras_client()
    eu, us, _ = three_sites.servers
    content = os.urandom(2 * 40_000 + last_bytes)
    send, ranges = oras.do_request, []

    def do_request(url, method="GET", **options):
        if method == "PATCH":
            ranges.append(options["headers"]["Content-Range"])
        return send(url, method, **options)

    monkeypatch.setattr(oras, "do_request", do_request)
    (tmp_path / "artifact.bin").write_bytes(content)
    oras.push(
        target=f"{eu.address}/{repository}:v1",
        files=[str(tmp_path / "artifact.bin")],
        disable_path_validation=True,
        do_chunked=True,
        chunk_size=40_000,
    )
    assert ranges[:3] == ["0-39999", "40000-79999", f"80000-{79_999 + last_bytes}"]
    await_tag(three_sites, repository)
    (path,) = oras.pull(target=f"{us.address}/{repository}:v1", outdir=str(tmp_path / "out"))
    assert Path(path).read_bytes() == content

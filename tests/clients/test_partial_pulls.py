"""podman's partial pulls of zstd:chunked layers: of a new version of an image, what differs is pulled. podman asks for
it by several ranges in one request, and has to be sent those alone."""

import os
import random
import re
import shutil
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.support.client import sha256
from tests.support.engines import run
from tests.support.needs import need
from tests.support.server import running_cluster

STORAGE = """
[storage]
driver = "overlay"
runroot = "{directory}/run"
graphroot = "{directory}/storage"
[storage.options]
pull_options = {{enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}}
"""
PEERS = "/_concord/peer"
"""The route under which instances count what they send to each other."""
FILES, FILE_BYTES = 30, 300_000
"""podman 4.3.1 fails to compress some other sizes (\"short write\")."""
CHANGED, CHANGED_BYTES = (3, 11, 17, 26), 20_000
"""Files that differ in the second version, so that several ranges of its layer are missing."""


class Podman:
    """podman with a storage of its own that takes partial images, which needs overlay mounts."""

    def __init__(self, directory: Path) -> None:
        need(shutil.which("podman") is not None, "podman is missing")
        self._directory = directory
        (directory / "storage.conf").write_text(STORAGE.format(directory=directory))
        self._environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(directory / "storage.conf")}

    def run(self, *words: str) -> str:
        return run(["podman", *words], env=self._environment)

    def build(self, version: int, seed: int, count: int = FILES) -> str:
        """Make a local image. Answers its name. Images of another seed share nothing: of a layer that a registry has
        already, podman forgets that it is chunked."""
        drawn = random.Random(seed)
        files = [drawn.randbytes(FILE_BYTES) for _ in range(count)]
        for number in CHANGED if version > 1 else ():
            files[number] = drawn.randbytes(CHANGED_BYTES)
        with tarfile.open(self._directory / "root.tar", "w") as tar:
            for number, content in enumerate(files):
                entry = tarfile.TarInfo(f"file-{number:02}")
                entry.size = len(content)
                tar.addfile(entry, BytesIO(content))
        name = f"localhost/app:{version}"
        self.run("import", "--quiet", str(self._directory / "root.tar"), name)
        return name

    def push(self, image: str, reference: str) -> None:
        words = ["--compression-format", "zstd:chunked", "--format", "oci", image, f"docker://{reference}"]
        self.run("push", "--quiet", "--tls-verify=false", *words)

    def pull(self, reference: str) -> str:
        return self.run("pull", "--quiet", "--tls-verify=false", reference)

    def digests(self, image: str) -> dict[str, str]:
        """The digest of each file of an image."""
        mounted = Path(self.run("image", "mount", image))
        try:
            return {file.name: sha256(file.read_bytes()) for file in mounted.iterdir()}
        finally:
            self.run("image", "umount", image)

    def close(self) -> None:
        self.run("system", "reset", "--force")


@pytest.fixture
def podman():
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    started = Podman(directory)
    yield started
    started.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("sites"), ["eu", "us"], copies="eu=1") as cluster:
        yield cluster


def sent_bytes(server, route: str = "/v2/<name>/blobs/<digest>") -> float:
    """Bytes of blobs that were sent to clients, or what was sent at another route."""
    text = server.client.get("/metrics").body.decode()
    found = re.findall(rf'^concord_sent_bytes_total\{{.*route="{route}".*\}} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


@pytest.mark.parametrize("site", [0, 1], ids=["content here", "content at another site"])
def test_of_a_new_version_podman_is_sent_what_differs(podman, sites, repository, site):
    eu, pulled_at = sites[0], sites[site]
    images = [podman.build(version, seed=site) for version in (1, 2)]
    expected = podman.digests(images[1])
    for version, image in enumerate(images, 1):
        podman.push(image, f"{eu.address}/{repository}:v{version}")
    podman.run("rmi", "--all", "--force")
    sites.wait_agreed()
    podman.pull(f"{pulled_at.address}/{repository}:v1")
    whole = sum(part["size"] for part in eu.client.get(f"/v2/{repository}/manifests/v2").json()["layers"])
    before = sent_bytes(pulled_at)
    pulled = podman.pull(f"{pulled_at.address}/{repository}:v2")
    moved = sent_bytes(pulled_at) - before
    assert podman.digests(pulled) == expected
    assert CHANGED_BYTES * len(CHANGED) < moved < whole / 20, (moved, whole)


MANY_FILES = 200


def test_a_holder_sends_a_fraction_too(podman, sites, repository):
    """The new version is at another instance alone, which sends the MiBs with what differs, and not the layer."""
    eu, us = sites
    images = [podman.build(version, seed=7, count=MANY_FILES) for version in (1, 2)]
    expected = podman.digests(images[1])
    for version, image in enumerate(images, 1):
        podman.push(image, f"{eu.address}/{repository}:v{version}")
    podman.run("rmi", "--all", "--force")
    sites.wait_agreed()
    before = sent_bytes(eu, PEERS)
    podman.pull(f"{us.address}/{repository}:v1")
    full = sent_bytes(eu, PEERS) - before
    whole = sum(part["size"] for part in eu.client.get(f"/v2/{repository}/manifests/v2").json()["layers"])
    assert full >= whole
    before = sent_bytes(eu, PEERS)
    pulled = podman.pull(f"{us.address}/{repository}:v2")
    moved = sent_bytes(eu, PEERS) - before
    assert podman.digests(pulled) == expected
    assert CHANGED_BYTES * len(CHANGED) < moved < full / 5, (moved, full)

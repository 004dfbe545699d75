"""Caches of real builds: exported at one site, kept by collection, imported from another by a builder without any."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.scenarios.test_collection import collect
from tests.support import images
from tests.support.engines import Failed, run
from tests.support.needs import need, need_go_client
from tests.support.server import running_cluster, wait_until

NOW = {"copies": "2", "acknowledge": "2", "gc_grace_s": "0", "gc_interval_s": "0"}
STEPS = ("one", "two")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("caches"), ["eu", "us"], **NOW) as cluster:
        yield cluster


@pytest.fixture
def context(tmp_path):
    """What is built: a step for each file. The content is new each time, so that no earlier build has cached it."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n" + "".join(f"COPY {step} /{step}\n" for step in STEPS))
    for step in STEPS:
        (tmp_path / step).write_bytes(os.urandom(50_000))
    return tmp_path


def collect_everywhere(pair):
    """Remove what nothing refers to: of the cache, that is nothing."""
    pair.wait_agreed()
    for server in pair.servers:
        collect(server, untagged_older_than_s=0)


def cached(log: str) -> int:
    """The number of steps that a cache had: BuildKit calls them CACHED, or shows their layers being pulled."""
    steps = re.findall(r"^#(\d+) \[\d/\d\] COPY", log, re.M)
    return sum(
        re.search(rf"^#{step} (CACHED|(pulling )?sha256:\S+ .*done)$", log, re.M) is not None for step in set(steps)
    )


def builds(command: str) -> bool:
    """True if this docker command speaks to the daemon's BuildKit: up to 20.10 itself, since 23 by a plugin."""
    version = run([command, "--version"]).split()[2]
    with_plugin = subprocess.run([command, "buildx", "version"], capture_output=True, check=False).returncode == 0
    return with_plugin or int(version.split(".")[0]) < 23


@pytest.fixture
def docker_build(docker, context):
    """Build by the BuildKit in dockerd. Return the log, as `cached` reads it."""
    commands = [path for path in (shutil.which("docker"), "/usr/bin/docker") if path and os.path.exists(path)]
    command = next((path for path in commands if builds(path)), None)
    need(command is not None, "a docker command that has BuildKit is missing")

    def build(image: str, *options: str) -> str:
        words = ["--host", docker._host, "build", "--progress=plain", "--tag", image, *options, str(context)]
        done = subprocess.run(
            [command, *words], env=os.environ | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return build


def test_build_imports_the_cache_that_another_build_wrote_into_its_image(docker, docker_build, pair, repository):
    """An inline cache: the image's config has the cache's records, and its layers are the cache's."""
    eu, us = (f"{server.address}/{repository}:cache" for server in pair.servers)

    def forget_all(image):
        docker.forget(image)
        docker.command("builder", "prune", "--all", "--force")

    assert cached(docker_build(eu, "--build-arg", "BUILDKIT_INLINE_CACHE=1")) == 0
    docker.command("push", eu)
    forget_all(eu)
    assert cached(docker_build("local/built")) == 0, "the builder has forgotten"
    forget_all("local/built")
    collect_everywhere(pair)
    assert cached(docker_build("local/built", "--cache-from", us)) == len(STEPS)
    forget_all("local/built")


class BuildKit:
    """A buildkitd with a directory of its own, which wants short paths for its socket."""

    def __init__(self, directory: Path) -> None:
        daemon, self._command = (need_go_client(name, "github.com/moby/buildkit") for name in ("buildkitd", "buildctl"))
        self._address = f"unix://{directory}/sock"
        self._log = directory / "log"
        worker = ["--oci-worker-snapshotter=native", "--oci-worker-net=host", "--containerd-worker=false"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [daemon, f"--root={directory}/root", f"--addr={self._address}", *worker], stdout=log, stderr=log
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            self.command("debug", "workers")
        except Failed:
            return False
        return True

    def command(self, *words: str) -> str:
        return run([self._command, "--addr", self._address, *words])

    def build(self, context: Path, *options: str) -> str:
        """Build into a file, for which the layers of an imported cache are pulled. Return the log."""
        places = [f"--local={name}={context}" for name in ("context", "dockerfile")]
        output = f"--output=type=oci,dest={context.parent / 'built.tar'}"
        words = ["build", "--frontend=dockerfile.v0", "--progress=plain", *places, output, *options]
        done = subprocess.run(
            [self._command, "--addr", self._address, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def buildkit():
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    try:
        started = BuildKit(directory)
        yield started
        started.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("as_image", [False, True], ids=["index", "image"])
def test_build_imports_the_cache_that_buildkit_exported_beside_its_image(as_image, buildkit, context, pair, repository):
    """An index of blobs, or an image whose layers are the cache's."""
    eu, us = (f"type=registry,ref={server.address}/{repository}:cache" for server in pair.servers)
    exporting = f"--export-cache={eu},mode=max,oci-mediatypes=true,image-manifest={str(as_image).lower()}"
    assert cached(buildkit.build(context, exporting)) == 0
    body = json.loads(pair[0].client.get(f"/v2/{repository}/manifests/cache").body)
    assert body["mediaType"] == (images.OCI_IMAGE if as_image else images.OCI_INDEX)
    config = body["config"] if as_image else body["manifests"][-1]
    assert config["mediaType"] == "application/vnd.buildkit.cacheconfig.v0"
    buildkit.command("prune", "--all")
    assert cached(buildkit.build(context)) == 0, "the builder has forgotten"
    buildkit.command("prune", "--all")
    collect_everywhere(pair)
    assert cached(buildkit.build(context, f"--import-cache={us}")) == len(STEPS)
    buildkit.command("prune", "--all")

"""Caches of real builds: exported at one site, kept by collection, imported from another by a builder without any."""

import os
import shutil
import subprocess

import pytest

from tests.scenarios.test_collection import collect
from tests.support.engines import run
from tests.support.needs import need
from tests.support.server import running_cluster

NOW = {"copies": "2", "acknowledge": "2", "gc_grace_s": "0", "gc_every_s": "0"}
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


def builds(command: str) -> bool:
    """True if this docker command speaks to the daemon's BuildKit: up to 20.10 itself, since 23 by a plugin."""
    version = run([command, "--version"]).split()[2]
    with_plugin = subprocess.run([command, "buildx", "version"], capture_output=True, check=False).returncode == 0
    return with_plugin or int(version.split(".")[0]) < 23


@pytest.fixture
def docker_build(docker, context):
    """Build by the BuildKit in dockerd. Return the log, in which steps are CACHED or not."""
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

    assert docker_build(eu, "--build-arg", "BUILDKIT_INLINE_CACHE=1").count("CACHED") == 0
    docker.command("push", eu)
    forget_all(eu)
    assert docker_build("local/built").count("CACHED") == 0, "the builder has forgotten"
    forget_all("local/built")
    collect_everywhere(pair)
    assert docker_build("local/built", "--cache-from", us).count("CACHED") == len(STEPS)
    forget_all("local/built")

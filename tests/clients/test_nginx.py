"""Real clients through Debian's nginx, configured as docs/nginx.conf says, while instances behind it come and go."""

import contextlib
import threading

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.nginx import for_clients
from tests.support.server import running_cluster, wait_until

ROUNDS = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Three instances at one site, which tests kill and start again."""
    with running_cluster(tmp_path_factory.mktemp("site"), ["eu", "eu", "eu"], copies="2") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nginx(site, tmp_path_factory):
    with for_clients(tmp_path_factory.mktemp("nginx"), [server.address for server in site.servers]) as proxy:
        wait_until(lambda: answers(proxy))
        yield proxy


def answers(nginx):
    with contextlib.suppress(OSError):
        return nginx.client.get("/v2/").status == 200


@pytest.fixture
def whole_again(site):
    """Starts what a test has ended."""
    yield
    for server in site.servers:
        if server.process is None:
            server.start()
    site.wait_acquainted()


def test_layers_of_any_size_pass_and_nothing_but_v2_does(nginx, repository):
    content = bytes(range(256)) * 80_000
    nginx.client.push_blob(repository, content)
    assert nginx.client.get(f"/v2/{repository}/blobs/{sha256(content)}").body == content
    for path in ("/_concord/status", "/metrics", "/readyz", "/"):
        assert nginx.client.get(path).status == 404


def test_as_many_ranges_as_podman_asks_for_pass(nginx, repository):
    content = bytes(range(256)) * 4096 * 16
    nginx.client.push_blob(repository, content)
    ranges = ",".join(f"{10_000_000 + 5_000 * n}-{10_000_000 + 5_000 * n + 99}" for n in range(1024))
    answer = nginx.client.get(f"/v2/{repository}/blobs/{sha256(content)}", Range=f"bytes={ranges}")
    assert (answer.status, answer.headers.get_content_type()) == (206, "multipart/byteranges")
    assert len(ranges) > 16 * 1024 and len(answer.body) < 400_000


@pytest.mark.usefixtures("whole_again")
def test_manifests_are_put_while_one_of_three_is_dead(site, nginx, repository):
    image = images.image()
    nginx.client.push(repository, "first", image)
    site[0].kill()
    for number in range(30):
        answer = nginx.client.put_manifest(repository, f"v{number}", image.body, image.media_type)
        assert answer.status == 201, answer


@pytest.mark.usefixtures("whole_again")
def test_pushes_and_pulls_go_on_while_one_of_three_is_dead(engine, site, nginx, repository):
    site[1].kill()
    for number in range(ROUNDS):
        push_and_pull(engine, f"{nginx.address}/{repository}:v{number}", f"dead-{number}")


@pytest.mark.usefixtures("whole_again")
def test_pushes_and_pulls_go_on_while_instances_are_restarted_one_after_the_other(engine, site, nginx, repository):
    """A rolling upgrade: uploads that are at work are finished where they were begun."""
    stop = threading.Event()

    def restart():
        while not stop.is_set():
            for server in site.servers:
                assert server.stop() == 0
                server.start()
                site.wait_acquainted()

    restarts = threading.Thread(target=restart)
    restarts.start()
    try:
        for number in range(ROUNDS):
            push_and_pull(engine, f"{nginx.address}/{repository}:v{number}", f"restarted-{number}")
    finally:
        stop.set()
        restarts.join()


def push_and_pull(engine, reference, version):
    image = engine.build(version)
    built = engine.image_id(image)
    engine.push(image, reference)
    engine.forget(image)
    assert engine.pull(reference) == built
    if engine.name != "skopeo":
        engine.forget(reference)

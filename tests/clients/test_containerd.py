"""containerd with a `hosts.toml` for two sites, as docs/start/deployment.md shows it, one of the sites being dead."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.engines import Failed, root_tar, run
from tests.support.needs import need
from tests.support.server import Server, running_cluster, wait_until

GUIDE = Path(__file__).parents[2] / "docs" / "start" / "deployment.md"
NAME = "registry.example.com"
CONFIGURATION = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'


class Containerd:
    """A containerd with a directory of its own."""

    def __init__(self, directory: Path) -> None:
        need(shutil.which("containerd") is not None and shutil.which("ctr") is not None, "containerd is missing")
        self.directory = directory
        self._address = directory / "sock"
        (directory / "config.toml").write_text(CONFIGURATION)
        places = [f"--{name}={directory / name}" for name in ("root", "state")]
        command = ["containerd", f"--config={directory / 'config.toml'}", f"--address={self._address}", *places]
        with (directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.directory / "log").read_text()
        try:
            self.command("version")
        except Failed:
            return False
        return True

    def command(self, *words: str) -> str:
        return run(["ctr", "--address", str(self._address), *words])

    def images(self, word: str, hosts: Path, *words: str) -> str:
        return self.command("images", word, "--hosts-dir", str(hosts), *words)

    def pull(self, hosts: Path, reference: str) -> str:
        """Pull and unpack. Answers the manifest's digest."""
        self.images("pull", hosts, "--snapshotter", "native", reference)
        return self.digest(reference)

    def digest(self, reference: str) -> str:
        (line,) = [line for line in self.command("images", "list").splitlines() if line.startswith(reference + " ")]
        return line.split()[2]

    def forget(self, reference: str) -> None:
        self.command("images", "remove", "--sync", reference)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def containerd():
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    started = Containerd(directory)
    yield started
    started.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("sites"), ["eu", "us"], name=NAME, log_requests="true") as cluster:
        yield cluster


def hosts_directory(directory: Path, eu: Server, us: Server, server: Server) -> Path:
    """What the guide shows: only addresses and TLS are not as they stand there."""
    ((where, text),) = re.findall(
        r"`/etc/containerd/certs\.d/(\S+)/hosts\.toml`.*?```toml\n(.*?)```", GUIDE.read_text(), re.S
    )
    assert where == NAME
    for shown, instance in ((f"https://eu.{NAME}", eu), (f"https://us.{NAME}", us), (f"https://{NAME}", server)):
        assert f'"{shown}"' in text
        text = text.replace(f'"{shown}"', f'"{instance.url}"')
    (directory / NAME).mkdir(parents=True)
    (directory / NAME / "hosts.toml").write_text(text)
    return directory


def push(server: Server, directory: Path, version: str) -> str:
    """An image whose layer can be unpacked. Answers its digest."""
    layer = root_tar(directory / "root.tar", version, padding=200_000).read_bytes()
    return server.client.push("app", version, images.unpackable([layer]))


def test_a_pull_goes_to_the_next_site_when_the_nearest_one_is_dead(containerd, sites, tmp_path):
    eu, us = sites.servers
    hosts = hosts_directory(tmp_path / "hosts", eu, us, us)
    both, one = push(eu, tmp_path, "both"), push(us, tmp_path, "one")
    sites.wait_agreed()
    assert containerd.pull(hosts, f"{NAME}/app:both") == both
    assert not us.logged(LogEvent.REQUEST_SERVED, method="GET", path="/v2/app/blobs"), "the nearest site is asked first"
    eu.kill()
    try:
        assert containerd.pull(hosts, f"{NAME}/app:one") == one
        containerd.command("images", "tag", f"{NAME}/app:one", f"{NAME}/app:pushed")
        containerd.images("push", hosts, f"{NAME}/app:pushed")
        assert us.client.head("/v2/app/manifests/pushed").headers["Docker-Content-Digest"] == one
    finally:
        eu.start()
        sites.wait_acquainted()


def test_instances_serve_only_names_they_go_by(containerd, sites, tmp_path):
    hosts = hosts_directory(tmp_path / "hosts", *sites.servers, sites[1])
    (hosts / NAME).rename(hosts / "other.example.com")
    with pytest.raises(Failed, match="not found"):
        containerd.pull(hosts, "other.example.com/app:both")

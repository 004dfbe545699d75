"""The Dockerfile, built for real on a bare Debian, pushed to one instance, pulled from another, and run."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry import __version__
from tests.support import images
from tests.support.client import Client
from tests.support.engines import Docker
from tests.support.needs import need
from tests.support.server import free_port, wait_until

pytestmark = pytest.mark.timeout(1200)  # debootstrap downloads and unpacks a Debian

ROOT = Path(__file__).parents[2]
SUITE, PYTHON = "bookworm", (3, 11)
BEFORE_3_11_3 = " ; python_full_version < '3.11.3'"
LEFT_OUT = "--exclude=./var/cache/apt/* --exclude=./var/lib/apt/lists/* --exclude=./usr/share/doc/*"
LIMITS = ["--network=host", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def last_line(said):
    return said.strip().rpartition("\n")[2]


@pytest.fixture(scope="module")
def docker():
    """A daemon that keeps everything in memory: on a disk, thousands of small files take their time to come and go."""
    need(os.geteuid() == 0, "only root can run dockerd and debootstrap")
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", directory], check=False)
        engine = Docker(directory, storage="")
        stack.callback(engine.close)
        yield engine


@pytest.fixture(scope="module")
def made(tmp_path_factory, pytestconfig):
    """A bare Debian as a tar, and a directory of wheels, made at the same time."""
    need(shutil.which("debootstrap") is not None, "debootstrap is missing")
    need(sys.version_info[:2] == PYTHON, f"wheels for Debian's Python {PYTHON} are made by the same one")
    cache = pytestconfig.cache.mkdir("debian") if hasattr(pytestconfig, "cache") else tmp_path_factory.mktemp("debian")
    with ThreadPoolExecutor() as pool:
        debian = pool.submit(bare_debian, cache, tmp_path_factory.mktemp("base"))
        wheels = pool.submit(locked_wheels, tmp_path_factory.mktemp("wheels"))
        return debian.result(), wheels.result()


def bare_debian(cache, directory):
    """Debian with Python and nothing else. It is kept for the runs of a week, since it changes no sooner."""
    tar = cache / f"{SUITE}-{date.today():%G-%V}.tar"
    if tar.exists():
        return tar
    part = directory / "root.tar"
    steps = [
        f"mount -t tmpfs none {directory}/memory",  # thousands of small files are synced one by one
        f"debootstrap --variant=minbase --include=python3-venv {SUITE} {directory}/memory/root",
        f"tar -C {directory}/memory/root -cf {part} {LEFT_OUT} .",
    ]
    (directory / "memory").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "\n".join(steps)], capture_output=True, text=True, check=False
    )
    need(done.returncode == 0, f"debootstrap got no Debian: {last_line(done.stdout + done.stderr)}")
    for old in cache.glob("*.tar"):
        old.unlink()
    return Path(shutil.move(part, tar))


def locked_wheels(directory):
    """Download what the lock file names as wheels, so that the build needs no network. Debian's Python is older than
    3.11.3, for which redis needs one package more."""
    lock = directory / "runtime.txt"
    lock.write_text((ROOT / "requirements" / "runtime.txt").read_text().replace(BEFORE_3_11_3, ""))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--require-hashes", "--wheel-dir", directory]
    done = subprocess.run([*pip, "--requirement", lock], capture_output=True, text=True, check=False)
    need(done.returncode == 0, f"pip got no wheels: {last_line(done.stderr)}")
    return directory


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def base(docker, made):
    docker.command("import", str(made[0]), "local/base")
    return "local/base"


@pytest.fixture(scope="module")
def wheels(made):
    """The address of the wheels."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=made[1])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def image(docker, base, wheels):
    given = {"BASE": base, "PIP_FIND_LINKS": wheels, "PIP_NO_INDEX": "1"}
    arguments = [f"--build-arg={name}={value}" for name, value in given.items()]
    docker.command("build", "--network=host", "--tag=local/concord", *arguments, str(ROOT))
    return "local/concord"


def test_docker_stop_ends_an_instance_in_order_while_an_upload_is_under_way(docker, image):
    """docker stop waits for 10 s, and the image says nothing of its own about that."""
    port = free_port()
    running = docker.command("run", "--detach", *LIMITS, f"--env=CONCORD_LISTEN=127.0.0.1:{port}", image)
    client = Client("127.0.0.1", port)
    wait_until(lambda: is_ready(client))
    location = client.begin_upload("app")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode())
        connection.sendall(bytes(500_000))
        docker.command("stop", running)
        assert connection.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert docker.command("wait", running) == "0"
    docker.command("rm", "--volumes", running)


def test_the_image_is_pushed_to_one_site_pulled_from_another_and_runs(docker, image, three_sites, repository):
    eu, us, _ = three_sites.servers
    built = docker.image_id(image)
    docker.push(image, f"{eu.address}/{repository}:{__version__}")
    docker.forget(image)
    reference = f"{us.address}/{repository}:{__version__}"
    assert docker.pull(reference) == built
    assert docker.command("run", "--rm", *LIMITS, reference, "--version") == f"concord {__version__}"
    port = free_port()
    running = docker.command("run", "--detach", *LIMITS, f"--env=CONCORD_LISTEN=127.0.0.1:{port}", reference)
    client = Client("127.0.0.1", port)
    wait_until(lambda: is_ready(client))
    pushed = images.image()
    client.push("app", "v1", pushed)
    assert client.pull("app", "v1") == pushed.body
    assert "app" in client.get("/v2/_catalog").json()["repositories"]
    assert docker.command("exec", running, "concord", "status", f"http://127.0.0.1:{port}")
    docker.command("stop", running)
    assert docker.command("wait", running) == "0"


def is_ready(client):
    with contextlib.suppress(OSError):
        return client.get("/readyz").status == 200

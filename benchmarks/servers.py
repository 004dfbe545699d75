"""The registries that are measured, each a process of its own on loopback."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

DOCKER_REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: {address}}}
"""


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block. Python keeps its bytecode, as an installed package has it."""
    kept = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=kept | environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def await_answer(url: str, every_s: float = 0.1) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(every_s)


@contextlib.contextmanager
def redis_server(root: Path) -> Iterator[str]:
    """A Redis that keeps nothing. Its URL."""
    address = free_address()
    options = ["--port", address.rpartition(":")[2], "--save", "", "--appendonly", "no"]
    with running(["redis-server", *options], root / "redis.log"):
        time.sleep(0.2)
        yield f"redis://{address}"


@contextlib.contextmanager
def concord(
    root: Path,
    site: str,
    bus: str = "",
    peers: Sequence[str] = (),
    address: str = "",
    wait: bool = True,
    within: Sequence[str] = (),
) -> Iterator[str]:
    """An instance on the directory of its site's name, with `within` as the command before its command. Its address."""
    address = address or free_address()
    environment = {
        "CONCORD_LISTEN": address,
        "CONCORD_DATA": str(root / site),
        "CONCORD_SITE": site,
        "CONCORD_BOOTSTRAP": "true",
        "CONCORD_REDIS": bus,
        "CONCORD_PEER": ",".join(f"http://{peer}" for peer in peers),
        "CONCORD_CLUSTER_KEY": "a key for the benchmarks",
    }
    with running([*within, sys.executable, "-m", "registry", "serve"], root / f"{site}.log", **environment):
        if wait:
            await_answer(f"http://{address}/readyz")
        yield address


@contextlib.contextmanager
def concord_pair(root: Path) -> Iterator[tuple[str, str]]:
    """Two instances at two sites, and the Redis between them: replication is on in every figure."""
    with redis_server(root) as bus, concord(root, "eu", bus) as first, concord(root, "us", bus) as second:
        yield first, second


@contextlib.contextmanager
def docker_registry(root: Path) -> Iterator[str]:
    """Debian's docker-registry on a directory of its own."""
    address = free_address()
    config = root / "docker-registry.yml"
    config.write_text(DOCKER_REGISTRY.format(root=root / "docker-registry", address=address))
    with running(["docker-registry", "serve", str(config)], root / "docker-registry.log"):
        await_answer(f"http://{address}/v2/")
        yield address

"""The registries that are measured, each a process of its own on loopback."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
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
def running(command: list[str], log: Path, **environment: str) -> Iterator[None]:
    import os

    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def await_answer(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def concord_pair(root: Path) -> Iterator[tuple[str, str]]:
    """Two instances at two sites, and the Redis between them: replication is on in every figure."""
    with contextlib.ExitStack() as stack:
        redis = free_address()
        options = ["--port", redis.rpartition(":")[2], "--save", "", "--appendonly", "no"]
        stack.enter_context(running(["redis-server", *options], root / "redis.log"))
        addresses = []
        for site in ("eu", "us"):
            address = free_address()
            environment = {
                "CONCORD_LISTEN": address,
                "CONCORD_DATA": str(root / site),
                "CONCORD_SITE": site,
                "CONCORD_REDIS": f"redis://{redis}",
                "CONCORD_CLUSTER_KEY": "a key for the benchmarks",
            }
            command = [sys.executable, "-m", "registry", "serve"]
            stack.enter_context(running(command, root / f"{site}.log", **environment))
            addresses.append(address)
        for address in addresses:
            await_answer(f"http://{address}/readyz")
        yield addresses[0], addresses[1]


@contextlib.contextmanager
def docker_registry(root: Path) -> Iterator[str]:
    """Debian's docker-registry on a directory of its own."""
    address = free_address()
    config = root / "docker-registry.yml"
    config.write_text(DOCKER_REGISTRY.format(root=root / "docker-registry", address=address))
    with running(["docker-registry", "serve", str(config)], root / "docker-registry.log"):
        await_answer(f"http://{address}/v2/")
        yield address

"""What replication costs: from a 201 at one site until it is served at another, healing after a partition, and pulling
through an instance that has to fetch.

    python -m benchmarks.replication [--only delay|heal|pull]

Two instances of two sites on loopback, and a Redis between them. Needs redis-server and curl.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio

from benchmarks.constants import AT_ONCE, opened, push
from benchmarks.figures import MEDIA_TYPE, Target
from benchmarks.servers import await_answer, concord, free_address, redis_server
from registry.catalog.catalog import Catalog

RATE = 200
PUSHES = 2_000
DIVERGED_TAGS = 34_000
"""Of a manifest with one blob: three facts each."""
DIVERGED_REPOSITORIES = 1_000
GIB = 1024 * 1024 * 1024


def main() -> None:
    figures = {"delay": delay, "heal": heal, "pull": pull}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", action="append", choices=sorted(figures))
    given = options.parse_args()
    for name, figure in figures.items():
        if not given.only or name in given.only:
            with tempfile.TemporaryDirectory(prefix="concord-replication-") as scratch:
                figure(Path(scratch))


def delay(root: Path) -> None:
    """A tag is moved at one site at a steady rate; the other one is asked without pause."""
    with redis_server(root) as bus:
        trips = asyncio.run(_round_trips(bus))
        with concord(root, "eu", bus) as first, concord(root, "us", bus) as second:
            found = asyncio.run(_delays(first, second))
    for name, at in (("median", 0.5), ("99th percentile", 0.99)):
        one, other = _at(found, at) * 1000, _at(trips, at) * 1000
        print(f"{one:8.2f} ms  {name} from a 201 to served at the other site, {one / other:.1f} × a bare Redis's")


async def _round_trips(bus: str) -> list[float]:
    """Publish and receive, nothing else."""
    client = redis.asyncio.from_url(bus)
    listening = client.pubsub()
    await listening.subscribe("bare")
    await listening.get_message(timeout=1)
    found = []
    for _ in range(PUSHES):
        begun = time.perf_counter()
        await client.publish("bare", b"x" * 600)
        while await listening.get_message(ignore_subscribe_messages=True, timeout=1) is None:
            pass
        found.append(time.perf_counter() - begun)
        await asyncio.sleep(1 / RATE)
    await client.aclose()
    return found


async def _delays(first: str, second: str) -> list[float]:
    """Each push has a repository of its own to be asked for, so that several can be under way."""
    target = Target("", first)
    digest = target.push_blob("bench/delay", b"{}")
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(8)
    local = threading.local()

    def one(number: int) -> float:
        if not hasattr(local, "writer"):
            local.writer, local.reader = http.client.HTTPConnection(first), http.client.HTTPConnection(second)
        body = _manifest(digest, number)
        path = f"/v2/bench/delay/manifests/v{number}"
        local.writer.request("PUT", path, body, {"Content-Type": MEDIA_TYPE})
        response = local.writer.getresponse()
        response.read()
        assert response.status == 201, response.status
        answered = time.perf_counter()
        while True:
            local.reader.request("HEAD", path)
            got = local.reader.getresponse()
            got.read()
            if got.status == 200:
                return time.perf_counter() - answered

    async def timed(number: int) -> float:
        await asyncio.sleep(number / RATE)
        return await loop.run_in_executor(pool, one, number)

    return await asyncio.gather(*(timed(number) for number in range(PUSHES)))


def _manifest(digest: str, number: int) -> bytes:
    descriptor = {"mediaType": "application/x", "digest": digest, "size": 2}
    content = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": descriptor, "layers": []}
    return json.dumps(content | {"annotations": {"number": str(number)}}).encode()


def heal(root: Path) -> None:
    """Two sides of a partition have each written half of the facts; how long until they have met, and then until they
    agree."""
    for site in ("eu", "us"):
        (root / site).mkdir()
        asyncio.run(_fill(root / site, site, DIVERGED_TAGS // 2, DIVERGED_REPOSITORIES))
    addresses = [free_address(), free_address()]
    with contextlib.ExitStack() as stack:
        for site, address in zip(("eu", "us"), addresses, strict=True):
            stack.enter_context(concord(root, site, peers=addresses, address=address, wait=False))
        for address in addresses:
            await_answer(f"http://{address}/healthz", every_s=0.01)
        before = max(one["facts"] for one in _statuses(addresses))
        begun = time.monotonic()
        _wait(addresses, lambda said: said[0]["facts"] > before or said[1]["facts"] > before)
        met = time.monotonic()
        facts = _wait(addresses, lambda said: said[0]["root"] == said[1]["root"])
        took = time.monotonic() - met
    print(
        f"{facts / took:8.0f} facts a second: {facts:,} over {DIVERGED_REPOSITORIES:,} repositories in {took:.1f} s, "
        f"{met - begun:.1f} s after the start"
    )


async def _fill(data: Path, prefix: str, tags: int, repositories: int) -> None:
    catalog = await opened(data)
    offset = 0 if prefix == "eu" else tags
    for at in range(0, tags, AT_ONCE):
        numbers = range(at, min(at + AT_ONCE, tags))
        names = {number: f"r{number % repositories}" for number in numbers}
        operations = [partial(_push, catalog, offset + number, names[number]) for number in numbers]
        await asyncio.gather(*(catalog.database.write(operation) for operation in operations))
    await catalog.stop()


def _push(catalog: Catalog, number: int, name: str, tx: object) -> object:
    return push(catalog, number, name, tx)  # type: ignore[arg-type]


def _wait(addresses: list[str], holds: Callable[[list[dict[str, Any]]], bool]) -> int:
    """Wait until something holds of both statuses. Answers how many facts there are then."""
    while not holds(said := _statuses(addresses)):
        time.sleep(0.05)
    return int(said[0]["facts"])


def _statuses(addresses: list[str]) -> list[dict[str, Any]]:
    said = []
    for address in addresses:
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("GET", "/_concord/status")
        said.append(json.loads(connection.getresponse().read()))
    return said


def pull(root: Path) -> None:
    """A blob of 1 GiB straight from its holder, and through an instance that has to fetch it; then 16 pulls at once."""
    with redis_server(root) as bus, concord(root, "eu", bus) as first, concord(root, "us", bus) as second:
        holder, target = Target("", first), root / "content"
        cold_pulls(first, second, target)
        with target.open("r+b") as file:
            file.write(b"another")
        digest, before = _upload(holder, target), _fetched(second)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: _curl(second, digest), range(16)))
        print(f"{(_fetched(second) - before) / GIB:8.2f} times is it moved for 16 pulls at once")


def cold_pulls(first: str, second: str, target: Path) -> None:
    """Pull new blobs of 1 GiB straight from `first`, and then through `second`. They are written to `target`."""
    straight, through = [], []
    for number in range(3):
        with target.open("wb") as file:
            for _ in range(64):
                file.write(os.urandom(GIB // 64))
        digest = _upload(Target("", first), target)
        straight.append(_curl(first, digest))
        through.append(_curl(second, digest))
        print(f"  round {number + 1}: straight {straight[-1]}, through {through[-1]}", flush=True)
    first_byte, took = (statistics.median(of) for of in zip(*through, strict=True))
    straight_first_byte, straight_took = (statistics.median(of) for of in zip(*straight, strict=True))
    print(
        f"{took / straight_took:8.2f} of a pull straight from the holder takes one of 1 GiB through an instance that "
        f"fetches: {took:.2f} and {straight_took:.2f} s"
    )
    print(f"{first_byte * 1000:8.1f} ms until its first byte; straight {straight_first_byte * 1000:.1f} ms")


def _upload(holder: Target, path: Path) -> str:
    digest = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    url = f"http://{holder.address}{holder.upload('bench/pull')}digest=sha256:{digest}"
    subprocess.run(["curl", "-sf", "-o", "/dev/null", "-T", str(path), url], check=True)
    return f"sha256:{digest}"


def _curl(address: str, digest: str) -> tuple[float, float]:
    """Seconds until the first byte, and until the last."""
    url = f"http://{address}/v2/bench/pull/blobs/{digest}"
    command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{time_starttransfer} %{time_total}", url]
    first, last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(first), float(last)


def _fetched(address: str) -> int:
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/metrics")
    for line in connection.getresponse().read().decode().splitlines():
        if line.startswith("concord_fetched_bytes_total "):
            return int(float(line.split()[1]))
    raise KeyError("concord_fetched_bytes_total")


def _at(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


if __name__ == "__main__":
    main()

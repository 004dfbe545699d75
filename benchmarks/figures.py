"""The figures: how each is taken, with wrk, curl and clients of our own (`images`)."""

import hashlib
import http.client
import json
import math
import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.connection import Connection
from benchmarks.images import Image, Shape, images_a_second, pull_image, push_image
from benchmarks.processor import processor_s

MANY = 400
"""Different manifests, and different blobs of 1 to 20 KiB, that are read in random order."""
SHAPES = {"19 KiB": Shape(5, 19 << 10), "2 MiB": Shape(5, 2 << 20), "50 MiB": Shape(1, 50 << 20)}
BIG_BYTES = 256 * 1024 * 1024
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"

PUT_TAGS = """
local body = io.open("{body}", "rb"):read("*a")
local thread_number = 0
function setup(thread)
  thread:set("number", thread_number)
  thread_number = thread_number + 1
end
local count = 0
function request()
  count = count + 1
  local path = string.format("/v2/{repository}/manifests/{prefix}-%d-%d", number, count)
  return wrk.format("PUT", path, {{["Content-Type"] = "{media_type}"}}, body)
end
"""

ANY_OF = """
local paths = {{}}
for line in io.lines("{paths}") do paths[#paths + 1] = line end
math.randomseed(os.time())
function request()
  return wrk.format("GET", paths[math.random(#paths)])
end
"""

MISSES = """
math.randomseed(os.time())
function request()
  local digest = ""
  for _ = 1, 8 do digest = digest .. string.format("%08x", math.random(0, 0x7fffffff)) end
  return wrk.format("GET", "/v2/bench/app/blobs/sha256:" .. digest)
end
"""


class Target:
    """A registry under test, and what was pushed to it."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.small = self.big = self.digest = ""
        self._pushed = 0
        self.many_blobs: list[str] = []
        self.processor_ms: dict[str, list[float]] = {}
        """Milliseconds of processor time for each image of the last pushes, by shape and process."""
        self.images: list[Image] = []
        """Images of 5 x 2 MiB."""

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, timeout=120)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        response.read()
        return response

    def push_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        location = self.upload(repository)
        response = self.request("PUT", f"{location}digest={digest}", content)
        assert response.status == 201, (self.name, response.status)
        return digest

    def upload(self, repository: str) -> str:
        """The path of a new upload, ready for a digest."""
        location = self.request("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        path = re.sub(r"^https?://[^/]*", "", location)
        return path + ("&" if "?" in path else "?")

    def prepare(self, root: Path) -> None:
        """Push what is pulled later."""
        self.small = self.push_blob("bench/app", b"s" * 1024)
        config = self.push_blob("bench/app", b"{}")
        parts = [
            {"mediaType": kind, "digest": digest, "size": size}
            for kind, digest, size in (
                ("application/vnd.oci.image.config.v1+json", config, 2),
                ("application/vnd.oci.image.layer.v1.tar", self.small, 1024),
            )
        ]
        manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": parts[0], "layers": parts[1:]}
        body = json.dumps(manifest).encode()
        (root / "manifest.json").write_bytes(body)
        for repository in ("bench/app", "bench/tags"):
            for content in (b"s" * 1024, b"{}"):
                self.push_blob(repository, content)
            response = self.request("PUT", f"/v2/{repository}/manifests/v1", body, **{"Content-Type": MEDIA_TYPE})
            assert response.status == 201, (self.name, response.status)
        self.big = self.push_blob("bench/app", big_file(root, 0).read_bytes())
        self._prepare_many(root)

    def _prepare_many(self, root: Path) -> None:
        """Push the blobs, manifests and images that are read in random order, and write the paths to read."""
        with Connection(self.address) as connection:
            for number in range(MANY):
                push_image(connection, "bench/many", f"v{number}", Shape(1, random.randint(1024, 20 << 10)))
                self.many_blobs.append(self.push_blob("bench/many", os.urandom(random.randint(1024, 20 << 10))))
            self.images = [push_image(connection, "bench/images", f"v{number}", SHAPES["2 MiB"]) for number in range(8)]
        (root / f"{self.name}.blobs").write_text("".join(f"/v2/bench/many/blobs/{d}\n" for d in self.many_blobs))
        paths = (f"/v2/bench/many/manifests/v{number}\n" for number in range(MANY))
        (root / f"{self.name}.manifests").write_text("".join(paths))

    def next_big_file(self, root: Path) -> Path:
        """256 MiB that this registry has never seen."""
        self._pushed += 1
        return big_file(root, hash((self.name, self._pushed)) & 0xFFFFFFFF)


def big_file(root: Path, number: int) -> Path:
    """A file of 256 MiB that begins with a number."""
    path = root / "big"
    if not path.exists():
        path.write_bytes(os.urandom(BIG_BYTES))
    with path.open("r+b") as file:
        file.write(number.to_bytes(8, "big"))
    return path


def wrk(
    target: Target, path: str, connections: int, seconds: int, script: Path | None = None, misses: bool = False
) -> tuple[float, float]:
    """Return the requests per second and bytes per second of a load. Any answer that is no success, or with `misses`
    none, ends the run."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30", "-H", f"Accept: {MEDIA_TYPE}"]
    command += ["-s", str(script)] if script else []
    said = subprocess.run(
        [*command, f"http://{target.address}{path}"], capture_output=True, text=True, check=True
    ).stdout
    assert ("Non-2xx" in said) == misses and "Socket errors" not in said, f"{target.name}: {said}"
    requests = float(re.search(r"Requests/sec:\s*([\d.]+)", said)[1])  # type: ignore[index]
    amount, unit = re.search(r"Transfer/sec:\s*([\d.]+)(\w+)", said).groups()  # type: ignore[union-attr]
    return requests, float(amount) * {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}[unit]


def resolve(target: Target, root: Path, seconds: int) -> float:
    return wrk(target, "/v2/bench/app/manifests/v1", 32, seconds)[0]


def small(target: Target, root: Path, seconds: int) -> float:
    return wrk(target, f"/v2/bench/app/blobs/{target.small}", 32, seconds)[0]


def pull(target: Target, root: Path, seconds: int) -> float:
    return wrk(target, f"/v2/bench/app/blobs/{target.big}", 4, seconds)[1] / 1e9


def push(target: Target, root: Path, seconds: int) -> float:
    """POST and PUT of new bytes, with curl."""
    path = target.next_big_file(root)
    digest = hashlib.file_digest(path.open("rb"), "sha256").hexdigest()
    begun = time.monotonic()
    url = f"http://{target.address}{target.upload('bench/app')}digest=sha256:{digest}"
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", "-T", str(path), url]
    status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert status == "201", f"{target.name} answered {status}"
    return BIG_BYTES / (time.monotonic() - begun) / 1e9


def tag_writes(target: Target, root: Path, seconds: int, repository: str = "bench/tags") -> float:
    script = root / "put-tags.lua"
    prefix = f"t{time.monotonic_ns()}"
    body = root / "manifest.json"
    script.write_text(PUT_TAGS.format(body=body, prefix=prefix, media_type=MEDIA_TYPE, repository=repository))
    return wrk(target, "/", 16, seconds, script)[0]


def any_of(what: str, target: Target, root: Path, seconds: int) -> float:
    """Return the requests a second for different manifests or blobs in random order."""
    script = root / "any-of.lua"
    script.write_text(ANY_OF.format(paths=root / f"{target.name}.{what}"))
    return wrk(target, "/", 32, seconds, script)[0]


def misses(target: Target, root: Path, seconds: int) -> float:
    script = root / "misses.lua"
    script.write_text(MISSES)
    return wrk(target, "/", 32, seconds, script, misses=True)[0]


def push_images(shape: str, target: Target, root: Path, seconds: int) -> float:
    """Return the images a second. The processor time that the server took for each is noted in `target`."""
    before, begun = processor_s(target.address), time.monotonic_ns()
    rate = images_a_second(
        target.address,
        seconds,
        lambda connection, number: push_image(connection, "bench/images", f"p{begun}-{number}", SHAPES[shape]),
    )
    pushed = rate * (time.monotonic_ns() - begun) / 1e9
    used = [after - before.get(pid, 0.0) for pid, after in processor_s(target.address).items()]
    target.processor_ms[shape] = [1000 * seconds / pushed for seconds in used]
    return rate


def pull_images(target: Target, root: Path, seconds: int) -> float:
    return images_a_second(
        target.address, seconds, lambda connection, number: pull_image(connection, target.images[number % 8])
    )


def mixed(target: Target, root: Path, seconds: int) -> float:
    """Return the images a second of which three of four are pulled and one is pushed."""
    begun = time.monotonic_ns()

    def step(connection: Connection, number: int) -> None:
        if number % 4:
            pull_image(connection, target.images[number % 8])
        else:
            push_image(connection, "bench/images", f"m{begun}-{number}", SHAPES["2 MiB"])

    return images_a_second(target.address, seconds, step)


def processor(shape: str, target: Target, root: Path, seconds: int) -> float:
    """Return the server's processor time for each image of the pushes before."""
    return sum(target.processor_ms.get(shape, [math.nan]))


def primary(shape: str, target: Target, root: Path, seconds: int) -> float:
    """Return that of Concord's primary, the second process after the supervisor, or of the one process of others."""
    used = target.processor_ms.get(shape, [math.nan])
    return used[min(1, len(used) - 1)]


class Figure(NamedTuple):
    measure: Callable[[Target, Path, int], float]
    unit: str


FIGURES = {
    "resolve": Figure(resolve, "manifests by tag a second, 32 connections"),
    "small": Figure(small, "blobs of 1 KiB a second, 32 connections"),
    "pull": Figure(pull, "GB/s, a blob of 256 MiB, 4 connections"),
    "push": Figure(push, "GB/s, POST and PUT of 256 MiB of new bytes"),
    "tag writes": Figure(tag_writes, "PUTs of one manifest to new tags a second, 16 connections"),
    "many tags": Figure(
        partial(any_of, "manifests"), f"{MANY} manifests by tag in random order a second, 32 connections"
    ),
    "many blobs": Figure(
        partial(any_of, "blobs"), f"{MANY} blobs of 1 to 20 KiB in random order a second, 32 connections"
    ),
    "misses": Figure(misses, "GETs of blobs that do not exist a second, 32 connections"),
    "push 19 KiB": Figure(partial(push_images, "19 KiB"), "pushes of images of 5 x 19 KiB a second, 4 at a time"),
    "push 2 MiB": Figure(partial(push_images, "2 MiB"), "pushes of images of 5 x 2 MiB a second, 4 at a time"),
    "processor": Figure(partial(processor, "2 MiB"), "ms of the server's processor time for each of these"),
    "primary": Figure(partial(primary, "2 MiB"), "ms of that in the primary process"),
    "push 50 MiB": Figure(partial(push_images, "50 MiB"), "pushes of images of 1 x 50 MiB a second, 4 at a time"),
    "pull 2 MiB": Figure(pull_images, "pulls of images of 5 x 2 MiB a second, 4 at a time"),
    "mixed": Figure(mixed, "images of 5 x 2 MiB a second, 3 of 4 pulled, 4 at a time"),
}


def replication_delay_ms(first: str, second: str, pushes: int = 300) -> list[float]:
    """How long after its 201 at one site a retag is served at the other, asked without pause."""
    writer, reader = Target("", first), http.client.HTTPConnection(second)
    digest = writer.push_blob("bench/delay", b"{}")
    delays = []
    for number in range(pushes):
        descriptor = {"mediaType": "application/x", "digest": digest, "size": 2}
        manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": descriptor, "layers": [], "annotations": {}}
        manifest["annotations"] = {"number": str(number)}
        body = json.dumps(manifest).encode()
        wanted = f"sha256:{hashlib.sha256(body).hexdigest()}"
        response = writer.request("PUT", "/v2/bench/delay/manifests/v1", body, **{"Content-Type": MEDIA_TYPE})
        assert response.status == 201
        answered = time.monotonic()
        while True:
            reader.request("HEAD", "/v2/bench/delay/manifests/v1")
            got = reader.getresponse()
            got.read()
            if got.headers.get("Docker-Content-Digest") == wanted:
                break
        delays.append((time.monotonic() - answered) * 1000)
        time.sleep(0.005)
    return delays

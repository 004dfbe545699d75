"""How fast content is checked: `concord verify` and a scrub, beside a single-threaded BLAKE3 of the same cached files.

    python -m benchmarks.checking [--mib N]

Needs nothing else.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from blake3 import blake3

from benchmarks.figures import Target
from benchmarks.servers import await_answer, free_address, running

MIB = 1024 * 1024
CONTENT_MIB = 64
ROUNDS = 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=2048, help="how much content there is")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="concord-checking-") as scratch:
        root, address = Path(scratch), free_address()
        command = [sys.executable, "-m", "registry", "serve", "--listen", address, "--data", str(root / "data")]
        with running([*command, "--scrub-mib-s", "1000000"], root / "log"):
            await_answer(f"http://{address}/readyz")
            target = Target("concord", address)
            for _ in range(given.mib // CONTENT_MIB):
                target.push_blob("bench/checked", os.urandom(CONTENT_MIB * MIB))
            report(root / "data", address)


def report(data: Path, address: str) -> None:
    taken: dict[str, list[float]] = {
        "a single-threaded BLAKE3": [],
        "verify": [],
        "verify --digests": [],
        "a scrub": [],
    }
    for _ in range(ROUNDS):
        taken["a single-threaded BLAKE3"].append(bare(data))
        for how in ("verify", "verify --digests"):
            taken[how].append(verify(data, how.split()))
        taken["a scrub"].append(scrub(address))
    bare_rate = statistics.median(taken["a single-threaded BLAKE3"])
    for name, rates in taken.items():
        rate = statistics.median(rates)
        print(f"{rate:8.2f} GB/s  {name}: {rate / bare_rate:.2f} of it")


def files(data: Path) -> list[Path]:
    return [path for path in sorted((data / "blobs").glob("*/*/*")) if path.is_file()]


def bare(data: Path) -> float:
    """Each MiB read and hashed, in one thread."""
    begun, size = time.monotonic(), 0
    for path in files(data):
        with path.open("rb", buffering=0) as file:
            while piece := file.read(MIB):
                blake3(piece).digest()
                size += len(piece)
    return size / (time.monotonic() - begun) / 1e9


def verify(data: Path, words: list[str]) -> float:
    """The command as a whole, less what a command takes that does nothing."""
    idle = _timed([sys.executable, "-m", "registry", "verify", "--help"])
    took = _timed([sys.executable, "-m", "registry", *words, "--data", str(data)])
    return sum(path.stat().st_size for path in files(data)) / (took - idle) / 1e9


def _timed(command: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def scrub(address: str) -> float:
    """A full pass, by the times that it says of itself."""
    last = _ask(address, "GET")["last"]
    _ask(address, "POST")
    while True:
        now = _ask(address, "GET")["last"]
        if now is not None and now != last:
            return float(now["bytes"]) / (now["ended_ms"] - now["started_ms"]) / 1e6
        time.sleep(0.02)


def _ask(address: str, method: str) -> dict[str, dict[str, float]]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, "/_concord/scrub")
    answer: dict[str, dict[str, float]] = json.loads(connection.getresponse().read())
    return answer


if __name__ == "__main__":
    main()

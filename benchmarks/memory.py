"""What the processes of an instance take more while large things pass through: a blob in, the same out, lists of all.

    python -m benchmarks.memory [--gib N] [--kept DIRECTORY]

Pushes and pulls a blob of N GiB, which takes twice as much on the disk; with the directory that `benchmarks.large
--keep` has filled, lists all its repositories and all tags of its largest one, too. Needs curl.
"""

import argparse
import contextlib
import hashlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Target
from benchmarks.large import Served, served

MIB = 1024 * 1024
LOOK_S = 0.02


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gib", type=int, default=10)
    options.add_argument("--kept", type=Path, help="what benchmarks.large has kept")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="concord-memory-") as name:
        root = Path(name)
        with served(root / "data", root) as server:
            streaming(server, root / "content", given.gib)
    if given.kept is not None:
        with served(given.kept / "data", given.kept) as server:
            for what, path in (("repositories", "/v2/_catalog"), ("tags", "/v2/bench/largest/tags/list")):
                with _watched(server, f"while all {what} are listed"):
                    _curl(f"http://{server.address}{path}")


def streaming(server: Served, content: Path, gib: int) -> None:
    """Push and pull one blob."""
    hashed = hashlib.sha256()
    with content.open("wb") as file:
        for _ in range(gib * 16):
            block = os.urandom(64 * MIB)
            hashed.update(block)
            file.write(block)
    target = Target("concord", server.address)
    target.push_blob("bench/app", b"what is loaded at the first push is no part of it")
    digest = f"sha256:{hashed.hexdigest()}"
    with _watched(server, f"while {gib} GiB come in"):
        url = f"http://{server.address}{target.upload('bench/app')}digest={digest}"
        _curl("-T", str(content), "-H", "Content-Type: application/octet-stream", url)
    content.unlink()
    with _watched(server, f"while {gib} GiB go out"):
        _curl(f"http://{server.address}/v2/bench/app/blobs/{digest}")


def _curl(*words: str) -> None:
    subprocess.run(["curl", "-sS", "--fail", "-o", os.devnull, *words], check=True)


@contextlib.contextmanager
def _watched(server: Served, what: str) -> Iterator[None]:
    """Print by how much the process that has grown most has grown meanwhile, at most."""
    before, grown, over = server.resident(), [0.0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            now = server.resident()
            grown.append(max(now[pid] - before[pid] for pid in before))

    watching, begun = threading.Thread(target=look), time.monotonic()
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    print(f"{max(grown):8.0f} MB more in a process {what} ({time.monotonic() - begun:.1f} s)", flush=True)


if __name__ == "__main__":
    main()

"""What an instance costs that knows a million tags, and whether what it does grows with them.

    python -m benchmarks.large [--tags N] [--repositories N] [--keep DIRECTORY]

Writes a catalog of that many tags over that many repositories (with --keep only once), the first of which has 100,000
tags and the second 50,000, and starts an instance on it. Needs wrk.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.constants import AT_ONCE, opened, push
from benchmarks.figures import Target, tag_writes, wrk
from benchmarks.servers import await_answer, free_address, running
from registry.catalog.catalog import PATH, Catalog

LARGEST = 100_000
LARGE = 50_000
ROUNDS = 3
SECONDS = 3
COUNT = """
import apsw, sys
database = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READONLY)
for (name,) in list(database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")):
    database.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()
"""
"""What the sqlite3 shell does for `SELECT COUNT(*)` of each table."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tags", type=int, default=1_000_000)
    options.add_argument("--repositories", type=int, default=20_000)
    options.add_argument("--keep", type=Path, help="where the catalog is kept for the next time")
    given = options.parse_args()
    with contextlib.ExitStack() as stack:
        kept = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="concord-large-")))
        data = kept / "data"
        if not (data / PATH).exists():
            data.mkdir(parents=True, exist_ok=True)
            begun = time.monotonic()
            asyncio.run(fill(data, given.tags, given.repositories))
            print(f"{given.tags:,} tags written in {time.monotonic() - begun:.0f} s")
        print(f"{(data / PATH).stat().st_size / given.tags:8.0f} bytes of SQLite for a tag with its manifest")
        starting(data, kept)
        with served(data, kept) as server:
            print(f"{server.resident_mb():8.0f} MB resident after the start, in the largest of its processes")
            paging(server.address)
            writing(server.address, kept)
            print(f"{server.resident_mb():8.0f} MB resident after all of this")


async def fill(data: Path, tags: int, repositories: int) -> None:
    """Write the catalog: two large repositories, and the rest over the others evenly."""
    catalog = await opened(data)
    large = [(LARGEST, "bench/largest"), (LARGE, "bench/large")]
    names = [name for count, name in large for _ in range(min(count, tags // 4))]
    for at in range(0, tags, AT_ONCE):
        numbers = range(at, min(at + AT_ONCE, tags))
        await asyncio.gather(
            *(catalog.database.write(partial(_push, catalog, n, names, repositories)) for n in numbers)
        )
        if at % 50_000 == 0:
            print(f"  {at:,}", end="\r", flush=True)
    await catalog.stop()


def _push(catalog: Catalog, number: int, names: list[str], repositories: int, tx: object) -> object:
    name = names[number] if number < len(names) else f"r{number % repositories}"
    return push(catalog, number, name, tx)  # type: ignore[arg-type]


class Served(NamedTuple):
    """An instance that runs."""

    address: str
    pid: int

    def resident(self) -> dict[str, float]:
        """MB of each of its processes."""
        pids = (str(self.pid), *Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
        statuses = {pid: Path(f"/proc/{pid}/status").read_text() for pid in pids}
        return {pid: int(status.partition("VmRSS:")[2].split()[0]) / 1024 for pid, status in statuses.items()}

    def resident_mb(self) -> float:
        """Of the largest of its processes."""
        return max(self.resident().values())


@contextlib.contextmanager
def served(data: Path, root: Path) -> Iterator[Served]:
    address = free_address()
    command = [sys.executable, "-m", "registry", "serve", "--listen", address, "--data", str(data)]
    with running(command, root / "large.log") as process:
        await_answer(f"http://{address}/readyz", every_s=0.005)
        yield Served(address, process.pid)


def starting(data: Path, root: Path) -> None:
    """From the start of the process to readyz, beside counting the rows of every table."""
    ready, counted = [], []
    for _ in range(ROUNDS):
        begun = time.monotonic()
        with served(data, root):
            ready.append(time.monotonic() - begun)
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", COUNT, str(data / PATH)], check=True)
        counted.append(time.monotonic() - begun)
    one, other = statistics.median(ready), statistics.median(counted)
    print(f"{one:8.2f} s  from start to readyz; {other:.2f} s to count all rows: {one / other:.2f} of it")


def paging(address: str) -> None:
    """Pages of 100 tags at the beginning, in the middle and at the end, beside a resolve."""
    target = Target("concord", address)
    resolved = [wrk(target, "/v2/bench/largest/manifests/v5", 32, SECONDS)[0] for _ in range(ROUNDS)]
    for last in ("", "v5", "v98"):
        pages = [wrk(target, f"/v2/bench/largest/tags/list?n=100&last={last}", 32, SECONDS)[0] for _ in range(ROUNDS)]
        ratio = statistics.median(resolved) / statistics.median(pages)
        print(f"{ratio:8.2f} times a resolve: a page of 100 tags of 100,000 behind {last or 'nothing'!r}")


def writing(address: str, root: Path) -> None:
    """Tag writes into a repository of 50,000 tags, beside those into one of few."""
    target = Target("concord", address)
    target.prepare(root)
    rates: dict[str, list[float]] = {"bench/tags": [], "bench/large": []}
    for repository in rates:
        for content in (b"s" * 1024, b"{}"):
            target.push_blob(repository, content)
    for number in range(2 * ROUNDS):
        for repository in rates if number % 2 else reversed(rates):
            rates[repository].append(tag_writes(target, root, SECONDS, repository))
    few, many = (statistics.median(rates[name]) for name in rates)
    print(f"{many / few:8.2f} of the rate into a small repository: tag writes into one of 50,000 ({many:.0f} a second)")


if __name__ == "__main__":
    main()

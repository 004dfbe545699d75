"""Cold pulls where there is a line between two sites, as there is outside of this machine, and not a loopback.

    python -m benchmarks.line [--rate 1gbit …]

Each site is a network namespace with an instance; the line is a pair of interfaces with a token bucket at either end. A
client at one of them pulls straight across the line, and through the instance beside it. Needs root, iproute2, curl and
redis-server.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.replication import cold_pulls
from benchmarks.servers import concord, running

PREFIX = f"concord-{os.getpid()}"
EU, US = "10.203.7.1", "10.203.7.2"
RATES = ["1gbit", "2500mbit", "10gbit"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rate", action="append", help="of the line, in each direction, as tc writes it")
    options.add_argument("--within", metavar="NAMESPACE", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.within:
        with tempfile.TemporaryDirectory(prefix="concord-line-") as scratch:
            pull(Path(scratch), ["ip", "netns", "exec", given.within])
        return
    for rate in given.rate or RATES:
        print(f"a line of {rate}:", flush=True)
        with line(rate) as (eu, us):
            client = [sys.executable, "-m", "benchmarks.line", "--within", eu]
            subprocess.run(["ip", "netns", "exec", us, *client], check=True)


@contextlib.contextmanager
def line(rate: str) -> Iterator[tuple[str, str]]:
    """Two namespaces and a line between them. Their names."""
    eu, us = f"{PREFIX}-eu", f"{PREFIX}-us"
    with contextlib.ExitStack() as stack:
        for name in (eu, us):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
        _run("ip", "link", "add", "line", "netns", eu, "type", "veth", "peer", "name", "line", "netns", us)
        for name, address in ((eu, EU), (us, US)):
            within = ("ip", "-n", name)
            _run(*within, "address", "add", f"{address}/24", "dev", "line")
            for device in ("lo", "line"):
                _run(*within, "link", "set", device, "up")
            bucket = ("tbf", "rate", rate, "burst", "4mb", "latency", "50ms")
            _run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "line", "root", *bucket)
        yield eu, us


def pull(root: Path, at_eu: list[str]) -> None:
    """Runs at site us: the holder is at the other end of the line."""
    redis = [*at_eu, "redis-server", "--bind", EU, "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    bus = f"redis://{EU}:6379"
    with (
        running(redis, root / "redis.log"),
        concord(root, "eu", bus, address=f"{EU}:5000", within=at_eu) as holder,
        concord(root, "us", bus, address=f"{US}:5000") as beside,
    ):
        time.sleep(2)  # they have met
        cold_pulls(holder, beside, root / "content")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

"""Cold pulls where there is a line between two sites, as there is outside of this machine, and not a loopback.

    python -m benchmarks.line [--rate 1gbit …] [--round-trip-ms 80 …]

Each site is a network namespace with an instance; the line is a pair of interfaces with a token bucket at either end,
or a thread that carries packets after a while. A client at one of them pulls straight across the line, and through the
instance beside it. Needs root, iproute2, curl, redis-server, and for a delay /dev/net/tun.
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
from typing import NamedTuple

from benchmarks.replication import cold_pulls
from benchmarks.servers import concord, running
from tests.support.network import Network
from tests.support.wide_area import WideArea

PREFIX = f"concord-{os.getpid()}"
EU, US = "10.203.7.1", "10.203.7.2"
RATES = ["1gbit", "2500mbit", "10gbit"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rate", action="append", help="of the line, in each direction, as tc writes it")
    options.add_argument("--round-trip-ms", action="append", type=float, help="between the sites, at whatever rate")
    options.add_argument("--between", nargs=4, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.between:
        with tempfile.TemporaryDirectory(prefix="concord-line-") as scratch:
            pull(Path(scratch), Ends(*given.between))
        return
    for rate in given.rate or ([] if given.round_trip_ms else RATES):
        print(f"a line of {rate}:", flush=True)
        with line(rate) as ends:
            pull_within(ends)
    for round_trip_ms in given.round_trip_ms or []:
        print(f"a line of {round_trip_ms:g} ms there and back:", flush=True)
        with far_line(round_trip_ms / 2000) as ends:
            pull_within(ends)


class Ends(NamedTuple):
    """The two sites: network namespaces, and addresses in them."""

    at_eu: str
    at_us: str
    eu: str
    us: str


def pull_within(ends: Ends) -> None:
    client = [sys.executable, "-m", "benchmarks.line", "--between", *ends]
    subprocess.run(["ip", "netns", "exec", ends.at_us, *client], check=True)


@contextlib.contextmanager
def far_line(delay_s: float) -> Iterator[Ends]:
    """`delay_s` is for each way."""
    with Network(2) as eu, Network(2) as us, WideArea(eu, us, delay_s, loss=0.0):
        yield Ends(eu.names[0], us.names[0], eu.addresses[0], us.addresses[0])


@contextlib.contextmanager
def line(rate: str) -> Iterator[Ends]:
    """As fast as `rate` says, and with no delay of its own."""
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
        yield Ends(eu, us, EU, US)


def pull(root: Path, ends: Ends) -> None:
    """Runs at site us: the holder is at the other end of the line."""
    at_eu = ["ip", "netns", "exec", ends.at_eu]
    redis = [*at_eu, "redis-server", "--bind", ends.eu, "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    bus = f"redis://{ends.eu}:6379"
    with (
        running(redis, root / "redis.log"),
        concord(root, "eu", bus, address=f"{ends.eu}:5000", within=at_eu) as holder,
        concord(root, "us", bus, address=f"{ends.us}:5000") as beside,
    ):
        time.sleep(2)  # they have met
        cold_pulls(holder, beside, root / "content")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

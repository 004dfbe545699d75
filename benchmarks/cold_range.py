"""A cold range of 1 GiB: how fast an instance answers it that holds nothing, from one holder and from two.

    python -m benchmarks.cold_range [--mib N] [--rounds N]

Starts a Redis, two holders of one blob and an instance without it, each at a site of its own. Prints what each holder
sent: two share the work. Needs redis-server.
"""

import argparse
import contextlib
import hashlib
import http.client
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Target
from benchmarks.servers import concord, redis_server

MIB = 1 << 20
PIECE_BYTES = 4 * MIB
REPOSITORY = "bench/cold"


class Range(NamedTuple):
    """One answer to a range."""

    first_byte_ms: float
    whole_s: float
    sent_mib: list[float]
    """What each holder sent to other instances meanwhile."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mib", type=int, default=1024, help="length of the range")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="concord-bench-") as root, contextlib.ExitStack() as stack:
        bus = stack.enter_context(redis_server(Path(root)))
        holders = [Target(site, stack.enter_context(concord(Path(root), site, bus))) for site in ("eu", "ap")]
        reader = Target("us", stack.enter_context(concord(Path(root), "us", bus)))
        for number in range(given.rounds):
            for count in (1, 2):
                print(f"round {number + 1}, {count} holding: {_measured(holders, count, reader, given.mib)}")


def _measured(holders: list[Target], count: int, reader: Target, mib: int) -> str:
    """Measure a range of a new blob that so many of the holders have, and of a byte in its middle before."""
    seed = os.urandom(PIECE_BYTES)
    hashed = hashlib.sha256()
    for piece in _content(seed, mib):
        hashed.update(piece)
    digest = f"sha256:{hashed.hexdigest()}"
    for holder in holders[:count]:
        _push(holder, seed, mib, digest)
    _await_link(reader, digest)
    first = _range(holders, reader, digest, mib * MIB // 2, 1)
    whole = _range(holders, reader, digest, PIECE_BYTES, mib * MIB)
    sent = " and ".join(f"{sent:,.0f} MiB" for sent in whole.sent_mib)
    speed = mib * MIB / whole.whole_s / 1e6
    return (
        f"one byte in the middle after {first.first_byte_ms:.0f} ms; {mib} MiB in {whole.whole_s:.1f} s "
        f"({speed:,.0f} MB/s), the first byte after {whole.first_byte_ms:.0f} ms; the holders sent {sent}"
    )


def _content(seed: bytes, mib: int) -> Iterator[bytes]:
    """Yield a blob somewhat longer than the range, no two pieces of which are equal."""
    for number in range(mib * MIB // PIECE_BYTES + 2):
        yield number.to_bytes(8, "big") + seed[8:]


def _push(holder: Target, seed: bytes, mib: int, digest: str) -> None:
    size = (mib * MIB // PIECE_BYTES + 2) * PIECE_BYTES
    connection = http.client.HTTPConnection(holder.address, timeout=120)
    path = f"{holder.upload(REPOSITORY)}digest={digest}"
    connection.request("PUT", path, _content(seed, mib), {"Content-Length": str(size)})
    assert connection.getresponse().status == 201


def _await_link(reader: Target, digest: str) -> None:
    while reader.request("HEAD", f"/v2/{REPOSITORY}/blobs/{digest}").status != 200:
        time.sleep(0.1)


def _range(holders: list[Target], reader: Target, digest: str, first: int, length: int) -> Range:
    before = [_sent_mib(holder) for holder in holders]
    begun = time.monotonic()
    connection = http.client.HTTPConnection(reader.address, timeout=120)
    header = {"Range": f"bytes={first}-{first + length - 1}"}
    connection.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}", headers=header)
    response = connection.getresponse()
    assert response.status == 206, response.status
    received = len(response.read(1))
    first_byte_ms = (time.monotonic() - begun) * 1000
    while piece := response.read(PIECE_BYTES):
        received += len(piece)
    assert received == length
    sent = [_sent_mib(holder) - was for holder, was in zip(holders, before, strict=True)]
    return Range(first_byte_ms, time.monotonic() - begun, sent)


def _sent_mib(holder: Target) -> float:
    connection = http.client.HTTPConnection(holder.address, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.findall(r'^concord_sent_bytes_total\{.*route="/_concord/peer".*\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found)) / MIB


if __name__ == "__main__":
    main()

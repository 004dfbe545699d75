"""What access control costs: an instance that enforces it beside one that does not, in turns.

Prints the rate of reads with a token and with a robot's key as a share of those without access control; how long a
request takes with one of many passwords, once each has been verified; what a flood of wrong passwords does to others;
and how long a revocation takes to be in force at another site. Needs wrk and redis-server.
"""

import argparse
import asyncio
import contextlib
import re
import statistics
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from benchmarks.figures import Target
from benchmarks.servers import concord, concord_pair

MANIFEST = "/v2/bench/app/manifests/v1"
ROOT, PASSWORD = "root", "the password of root"
AT_ONCE = 2
"""Passwords that an instance hashes at once."""

Headers = dict[str, str]


def basic(name: str, secret: str) -> Headers:
    return {"Authorization": "Basic " + b64encode(f"{name}:{secret}".encode()).decode()}


async def act(http: aiohttp.ClientSession, address: str, path: str, **fields: object) -> dict[str, object]:
    """Ask for a change of access control as the first administrator."""
    url = f"http://{address}/_concord/access/{path}"
    async with http.post(url, json=fields, headers=basic(ROOT, PASSWORD)) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, object] = await answer.json()
        return found


async def enforce(http: aiohttp.ClientSession, address: str) -> None:
    fields = {"name": ROOT, "password": PASSWORD, "admin": True}
    async with http.post(f"http://{address}/_concord/access/account/create", json=fields) as answer:
        assert answer.status == 200, await answer.text()
    await act(http, address, "enforce")


async def robot(http: aiohttp.ClientSession, address: str) -> Headers:
    """Make a robot that may pull everything. Return what it sends."""
    await act(http, address, "robot/create", name="ci")
    await act(http, address, "grant", subject="ci", repositories="*", rights=["pull"])
    key = (await act(http, address, "key/create", account="ci"))["key"]
    return basic("ci", str(key))


async def token(http: aiohttp.ClientSession, address: str, headers: Headers) -> Headers:
    url = f"http://{address}/v2/token?service=concord&scope=repository:bench/app:pull"
    async with http.get(url, headers=headers) as answer:
        return {"Authorization": f"Bearer {(await answer.json())['token']}"}


def rate(address: str, headers: Headers, seconds: int) -> float:
    """Return the requests a second that wrk has answered with the manifest of a tag."""
    more = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    command = ["wrk", "-t1", "-c16", f"-d{seconds}", *more, f"http://{address}{MANIFEST}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in printed, printed
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", printed)[0])


async def timed(http: aiohttp.ClientSession, address: str, headers: Headers, expected: int = 200) -> float:
    """Return the milliseconds that a read takes."""
    begun = time.perf_counter()
    async with http.get(f"http://{address}{MANIFEST}", headers=headers) as answer:
        await answer.read()
        assert answer.status == expected, answer.status
    return (time.perf_counter() - begun) * 1000


async def steadily(per_s: int, seconds: float, request: Callable[[int], Awaitable[float]]) -> list[float]:
    """Begin requests at a steady rate, whether those before are answered or not. Return their times."""
    loop, tasks = asyncio.get_running_loop(), []
    begun = loop.time()
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, begun + number / per_s - loop.time()))
        tasks.append(asyncio.ensure_future(request(number)))
    return list(await asyncio.gather(*tasks))


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def rates(http: aiohttp.ClientSession, plain: str, guarded: str, rounds: int, seconds: int) -> Headers:
    """Print the shares of the rate without access control. Return a token."""
    key = await robot(http, guarded)
    bearer = await token(http, guarded, key)
    shares: dict[str, list[float]] = {"token": [], "robot's key": []}
    for _ in range(rounds):
        for name, headers in (("token", bearer), ("robot's key", key)):
            without = await asyncio.to_thread(rate, plain, {}, seconds)
            shares[name].append(await asyncio.to_thread(rate, guarded, headers, seconds) / without)
    for name, found in shares.items():
        print(f"reads with a {name}: {statistics.median(found):.2f} × those without access control")
    return bearer


async def many_passwords(http: aiohttp.ClientSession, plain: str, guarded: str, accounts: int, per_s: int) -> None:
    """Print what a request costs with one of many passwords."""
    await act(http, guarded, "grant", subject="authenticated", repositories="bench/*", rights=["pull"])
    turns = asyncio.Semaphore(AT_ONCE)

    async def make(number: int) -> None:
        async with turns:
            await act(http, guarded, "account/create", name=f"user{number}", password=f"password {number}")

    await asyncio.gather(*map(make, range(accounts)))
    credentials = [basic(f"user{number}", f"password {number}") for number in range(accounts)]

    async def warm(headers: Headers) -> None:
        async with turns:
            await timed(http, guarded, headers)

    begun = time.perf_counter()
    await asyncio.gather(*map(warm, credentials))
    print(f"{accounts} passwords were verified for the first time in {time.perf_counter() - begun:.1f} s")
    without = await steadily(per_s, 10, lambda number: timed(http, plain, {}))
    found = await steadily(per_s, 10, lambda number: timed(http, guarded, credentials[number % accounts]))
    print(
        f"at {per_s} requests/s with {accounts} passwords: median {statistics.median(found):.2f} ms, "
        f"without access control {statistics.median(without):.2f} ms"
    )


async def flood(http: aiohttp.ClientSession, guarded: str, bearer: Headers) -> None:
    """Print what others notice of wrong passwords."""
    calm = await steadily(200, 10, lambda number: timed(http, guarded, bearer))
    answers: dict[int, int] = {}

    async def guess() -> None:
        for number in range(1_000_000):
            async with http.get(f"http://{guarded}/v2/", headers=basic("ci", f"guess {number}")) as answer:
                answers[answer.status] = answers.get(answer.status, 0) + 1

    guessing = [asyncio.ensure_future(guess()) for _ in range(20)]
    await asyncio.sleep(1.0)
    flooded = await steadily(200, 10, lambda number: timed(http, guarded, bearer))
    for task in guessing:
        task.cancel()
    print(
        f"99th percentile of reads during a flood of wrong passwords ({answers}): {percentile(flooded, 0.99):.1f} ms, "
        f"before it {percentile(calm, 0.99):.1f} ms"
    )


async def revocations(http: aiohttp.ClientSession, first: str, second: str, rounds: int) -> None:
    """Print how long it takes until a revocation at one site is in force at another one."""
    await enforce(http, first)
    key = await robot(http, first)
    delays = []
    for _ in range(rounds):
        await act(http, first, "grant", subject="ci", repositories="bench/*", rights=["pull"])
        await _until(http, second, key, 200)
        await act(http, first, "revoke", subject="ci", repositories="*")
        begun = time.perf_counter()
        await _until(http, second, key, 403)
        delays.append((time.perf_counter() - begun) * 1000)
    print(
        f"a revocation is in force at another site {statistics.median(delays):.1f} ms (median), "
        f"{max(delays):.1f} ms (longest of {rounds}) after its answer"
    )


async def _until(http: aiohttp.ClientSession, address: str, headers: Headers, status: int) -> None:
    """Ask until the answer has a status."""
    while True:
        async with http.get(f"http://{address}{MANIFEST}", headers=headers) as answer:
            if answer.status == status:
                return


async def measure(root: Path, plain: str, guarded: str, options: argparse.Namespace) -> None:
    for name, address in (("plain", plain), ("guarded", guarded)):
        Target(name, address).prepare(root)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as http:
        await enforce(http, guarded)
        bearer = await rates(http, plain, guarded, options.rounds, options.seconds)
        await many_passwords(http, plain, guarded, options.accounts, 500)
        await flood(http, guarded, bearer)
        with concord_pair(root) as (first, second):
            Target("first", first).prepare(root)
            await revocations(http, first, second, 20)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5, help="how often each rate is taken (the median counts)")
    options.add_argument("--seconds", type=int, default=4, help="how long a load lasts")
    options.add_argument("--accounts", type=int, default=1000, help="accounts with passwords")
    given = options.parse_args()
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="concord-bench-")))
        plain, guarded = (stack.enter_context(concord(root, site)) for site in ("plain", "guarded"))
        asyncio.run(measure(root, plain, guarded, given))


if __name__ == "__main__":
    main()

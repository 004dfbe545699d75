"""The cluster of a run: instances on hosts of their own, Redis servers on others, and what can be done to them."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.scenarios.histories.launch import CLOCK_VARIABLE, PLANTED_VARIABLE, PREPARE, WrongClock
from tests.scenarios.histories.plan import Plan
from tests.support.network import Network
from tests.support.processes import children_of
from tests.support.server import Redis, Server

PORT = 5000
SETTINGS = {
    "copies": "2",
    "acknowledge": "2",
    "acknowledge_timeout_s": "10",
    "verify_after_s": "0",
    "gc_interval_s": "3",
    "gc_grace_s": "12",
    "scrub_mib_s": "0",
    "holder_wait_s": "5",
}
"""Two holders for all content, so that a damaged file is never the only one; all reads verified, since damage comes
within seconds; collection all the time, with a grace that is longer than a push under faults takes."""


class Member:
    """One instance: its processes and what surrounds them."""

    def __init__(self, number: int, site: str, server: Server, clock: WrongClock) -> None:
        self.number = number
        self.site = site
        self.server = server
        self.clock = clock
        self.is_down = False
        """True if the harness ended it, and has not started it again."""
        self.in_rotation = False
        """True if the balancer sends requests here."""

    def processes(self) -> tuple[int, list[int]]:
        """The primary (0 where there is none just now) and the workers."""
        process = self.server.process
        if process is None or process.poll() is not None:
            return 0, []
        with suppress(FileNotFoundError, ProcessLookupError):
            children = children_of(process.pid)
            primaries = [pid for pid in children if _is_primary(pid)]
            primary = primaries[0] if len(primaries) == 1 else 0
            return primary, [pid for pid in children if pid not in primaries]
        return 0, []

    def all_processes(self) -> list[int]:
        process = self.server.process
        if process is None or process.poll() is not None:
            return []
        primary, workers = self.processes()
        return [process.pid, *([primary] if primary else []), *workers]


def _is_primary(pid: int) -> bool:
    """Return whether a process has the catalog open for writing, which takes two connections."""
    opened = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed meanwhile
                opened += os.readlink(link).endswith("catalog.sqlite")
    return opened >= 2


def signal_all(pids: list[int], number: int) -> int:
    """Send a signal to processes that may be gone. Return how many were there."""
    sent = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            sent += 1
    return sent


class Members:
    """All instances and Redis servers of a plan. A context manager."""

    def __init__(self, plan: Plan, directory: Path, planted: str = "") -> None:
        """`planted` names a bug that all instances have (see launch)."""
        self.network = Network(len(plan.sites) + plan.redis_servers)
        count = len(plan.sites)
        self.redis = [
            Redis(directory, self.network.addresses[count + n], self.network.names[count + n])
            for n in range(plan.redis_servers)
        ]
        urls = [redis.url for redis in self.redis]
        self.corrupted: set[str] = set()
        """Digests whose file was damaged somewhere."""
        self.all = [self._make(plan, directory, number, site, urls, planted) for number, site in enumerate(plan.sites)]

    def _make(self, plan: Plan, directory: Path, number: int, site: str, redis: list[str], planted: str) -> Member:
        clock = WrongClock(directory / f"clock{number}")
        host = self.network.addresses[number]
        server = Server(
            directory / f"{number}-{site}",
            site,
            redis,
            host=host,
            port=PORT,
            namespace=self.network.names[number],
            prepare=PREPARE,
            workers=str(plan.workers),
            **SETTINGS,
        )
        server.environment |= {CLOCK_VARIABLE: str(clock.path), PLANTED_VARIABLE: planted}
        return Member(number, site, server, clock)

    def __enter__(self) -> "Members":
        self.network.__enter__()
        try:
            for redis in self.redis:
                redis.start()
            for member in self.all:
                member.server.start(wait=False)
            for member in self.all:
                member.server.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.all:
            signal_all(member.all_processes(), signal.SIGCONT)
            member.server.kill()
        for redis in self.redis:
            redis.kill()
        self.network.__exit__()

    def of_site(self, site: str) -> list[Member]:
        return [member for member in self.all if member.site == site]

    def drop(self, host: int, *rule: str, add: bool = True) -> None:
        """Add or take away a rule by which a host drops packets."""
        command = ["iptables", "-w", "-A" if add else "-D", *rule, "-j", "DROP"]
        subprocess.run(["ip", "netns", "exec", self.network.names[host], *command], check=True, capture_output=True)

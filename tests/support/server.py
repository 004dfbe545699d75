"""Real instances as processes of their own, and a real Redis."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from registry.cli.demo import redis_executable
from registry.telemetry.events import LogEvent
from tests.support.client import Client
from tests.support.logs import log_lines, select
from tests.support.starter import CAN_FORK, STARTER, Started

KEY = "a-cluster-key-for-the-tests"
START_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition, timeout_s: float = 20.0, every_s: float = 0.05):
    """The first true answer of `condition`, or an assertion error when none comes in time. A machine that stands still
    between two looks, as virtual ones do, takes at most a second of it: the process that is waited for stood still,
    too."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        begun = time.monotonic()
        assert begun < deadline, f"nothing within {timeout_s} s"
        time.sleep(every_s)
        deadline += max(time.monotonic() - begun - every_s - 1.0, 0.0)


class Redis:
    """A Redis server that can be killed, paused and started again at the same address."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", namespace: str | None = None) -> None:
        self.host = host
        self._on_host = ["ip", "netns", "exec", namespace] if namespace else []
        self.port = free_port()
        self.url = f"redis://{host}:{self.port}"
        self._directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    def executable(self) -> str:
        return redis_executable()

    def start(self, *more: str) -> "Redis":
        options = ["--port", str(self.port), "--bind", self.host, "--save", "", "--appendonly", "no"]
        options += ["--protected-mode", "no", *more]
        self.process = subprocess.Popen(
            [*self._on_host, self.executable(), *options],
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 0.2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def command(self, *words: str) -> bytes:
        with socket.create_connection((self.host, self.port), 2) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(4096)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Server:
    """One instance, as `concord serve` runs it."""

    def __init__(
        self,
        data: Path,
        site: str = "",
        redis: Sequence[str] = (),
        peers: Sequence[str] = (),
        clustered: bool = False,
        port: int | None = None,
        host: str = "127.0.0.1",
        namespace: str | None = None,
        constants: Mapping[str, float] | None = None,
        prepare: str | None = None,
        context: ssl.SSLContext | None = None,
        **settings: str,
    ) -> None:
        """`constants` changes some in the process, by their dotted names; `prepare` ("module:function") names what the
        process calls before it serves; `context` is that of clients, where the settings say that it has TLS."""
        self.data = data
        self.port = port or free_port()
        self.host = host
        self.address = f"{host}:{self.port}"
        self.context = context
        self.url = f"{'https' if context else 'http'}://{self.address}"
        self.log = data.parent / f"{data.name}.log"
        self._namespace = namespace
        self._constants = constants
        self._prepare = prepare
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
        self.environment |= {"CONCORD_LISTEN": self.address, "CONCORD_DATA": str(data), "CONCORD_SITE": site}
        self.environment["CONCORD_WORKERS"] = (
            "1"  # many run at once; what several processes change has tests of its own
        )
        if clustered or redis or peers:
            self.environment["CONCORD_CLUSTER_KEY"] = KEY
        if redis:
            self.environment["CONCORD_REDIS"] = ",".join(redis)
        if peers:
            self.environment["CONCORD_PEER"] = ",".join(peers)
        if not host.startswith("127."):
            self.environment["CONCORD_INSECURE"] = "true"  # hosts of tests are on a network of their own
        self.environment["CONCORD_BOOTSTRAP"] = "true"  # most tests begin with an empty cluster
        self.environment["CONCORD_LOG_FORMAT"] = "json"  # for `logged`
        self.environment |= {f"CONCORD_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | Started | None = None

    def start(self, wait: bool = True) -> "Server":
        command = [sys.executable, "-m", "registry", "serve"]
        if self._constants:
            changes = [f"import {name.rpartition('.')[0]}; {name} = {value}" for name, value in self._constants.items()]
            command[1:] = ["-c", "; ".join([*changes, "from registry.cli.main import run; run()"]), "serve"]
        if self._namespace is not None:
            command = ["ip", "netns", "exec", self._namespace, *command]
        with self.log.open("ab") as log:
            if CAN_FORK and not self._constants:
                self.process = STARTER.start(self.environment, log.fileno(), self._namespace, self._prepare)
            else:
                self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None and self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                return self.client.get("/readyz").status == 200
            return False

        wait_until(ready, START_S)

    @property
    def client(self) -> Client:
        return Client(self.host.strip("[]"), self.port, context=self.context)

    def kill(self) -> None:
        """End it as a power cut would, but for the disk."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.process = None
        return code

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def upload_bytes(self) -> float:
        """Return how many bytes it has received of uploads under way."""
        found = re.search(rb"^concord_upload_bytes (.+)$", self.client.get("/metrics").body, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def status(self) -> dict:
        return self.client.get("/_concord/status").json()

    def logged(self, event: LogEvent, **fields: object) -> list[dict]:
        """Return its log lines of an event that hold these fields."""
        return select(log_lines(self.log.read_text()), event, **fields)

    def root(self) -> str:
        return self.client.get("/_concord/digest").json()["root"]


class Cluster:
    """Several instances and the Redis between them."""

    def __init__(
        self,
        directory: Path,
        sites: Sequence[str],
        with_redis: bool = True,
        ports: Sequence[int] = (),
        **settings: str,
    ) -> None:
        self.directory = directory
        self.redis = Redis(directory) if with_redis else None
        redis = [self.redis.url] if self.redis else []
        ports = ports or [free_port() for _ in sites]
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        self.servers = [
            Server(
                directory / f"{number}-{site}",
                site,
                redis,
                [] if with_redis else addresses,
                port=port,
                **settings,
            )
            for number, (site, port) in enumerate(zip(sites, ports, strict=True))
        ]

    def start(self) -> "Cluster":
        if self.redis:
            self.redis.start()
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            server.wait_ready()
        self.wait_acquainted()
        return self

    def wait_acquainted(self) -> None:
        """Wait until every instance knows every other one as live."""
        others = len([server for server in self.servers if server.process]) - 1

        def acquainted() -> bool:
            return all(
                sum(member["live"] for member in server.status()["members"]) >= others
                for server in self.servers
                if server.process
            )

        wait_until(acquainted)

    def wait_agreed(self, timeout_s: float = 20.0) -> str:
        """Wait until all that run have one state digest. Return it."""

        def agreed() -> str | None:
            roots = {server.root() for server in self.servers if server.process}
            return roots.pop() if len(roots) == 1 else None

        return wait_until(agreed, timeout_s)

    def __getitem__(self, number: int) -> Server:
        return self.servers[number]

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
        if self.redis:
            self.redis.kill()


@contextlib.contextmanager
def running_cluster(directory: Path, sites: Sequence[str], **options) -> Iterator[Cluster]:
    cluster = Cluster(directory, sites, **options)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@contextlib.contextmanager
def running_server(data: Path, **options) -> Iterator[Server]:
    server = Server(data, **options)
    try:
        yield server.start()
    finally:
        server.kill()

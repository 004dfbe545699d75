"""Running an instance: its sockets, its lock, its signals."""

import asyncio
import contextlib
import errno
import fcntl
import logging
import math
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import apsw
import uvicorn
import uvloop
from prometheus_client import ProcessCollector

from registry import __version__
from registry.catalog.catalog import PATH
from registry.cli.logs import set_up_logging
from registry.cluster.keys import ClusterKey
from registry.config import Config
from registry.errors import CannotStart, StorageFailed
from registry.http.app import App
from registry.http.protocol import BoundedProtocol
from registry.instance import Instance
from registry.seams import Bus
from registry.system.bus import RedisBus, SilentBus
from registry.system.clock import SystemClock
from registry.system.disk import SystemDisk
from registry.system.http import HttpTransport

log = logging.getLogger("concord")

KEEP_ALIVE_S = 90  # longer than the 60 to 75 s after which balancers close idle connections themselves
DRAIN_LOOK_S = 0.2
LOCK = "lock"


def serve(config: Config) -> None:
    """Serve until a signal ends it. Raises CannotStart."""
    set_up_logging(config)
    _raise_file_limit()
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(_listening(config.address))
        internal = stack.enter_context(_listening(config.internal_address)) if config.internal_address else None
        stack.enter_context(locked(config.data))
        _check_catalog(config.data)
        uvloop.run(_serve(config, public, internal))


async def _serve(config: Config, public: socket.socket, internal: socket.socket | None) -> None:
    transport = HttpTransport()
    try:
        instance = Instance(config, SystemClock(), SystemDisk(config.data), _bus(config), transport)
        await instance.start()
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise CannotStart(f"the catalog in {config.data} is damaged ({error}); {_WAYS_OUT}") from None
    except (apsw.Error, OSError, StorageFailed) as error:
        raise CannotStart(f"the data directory {config.data} cannot be used: {error}") from None
    ProcessCollector(registry=instance.metrics)
    servers = [(_Server(_server_config(App(instance, internal=internal is None))), public)]
    if internal is not None:
        servers.append((_Server(_server_config(App(instance, registry=False))), internal))
    loop = asyncio.get_running_loop()
    drain = _Drain(instance, [server for server, _ in servers])
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, drain.begin)
    instance.cluster.on_left = drain.begin
    site = f" at site {config.site}" if config.site else ""
    host, port = public.getsockname()[:2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    log.info("Concord %s, instance %s%s, serves http://%s", __version__, instance.catalog.instance_id, site, address)
    log.info("the data directory is %s", config.data.absolute())
    if internal is not None:
        log.info("health, status, metrics and other instances are served at http://%s:%s", *internal.getsockname()[:2])
    await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in servers))
    await instance.close()
    await transport.close()
    log.info("ended")


class _Drain:
    """Ending in order: not ready at once; closed when no upload is at work, so that one that was begun here can be
    finished here; ended when the requests under way are. A second signal waits for nobody."""

    def __init__(self, instance: Instance, servers: "list[_Server]") -> None:
        self._instance = instance
        self._servers = servers
        self._waiting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._close(force=True)
            return
        self._instance.draining = True
        self._waiting = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        """Both waits share the time there is."""
        left_s = self._instance.config.drain_s
        while left_s > 0 and self._instance.uploads.at_work:
            await asyncio.sleep(DRAIN_LOOK_S)
            left_s -= DRAIN_LOOK_S
        for server in self._servers:
            server.config.timeout_graceful_shutdown = math.ceil(max(left_s, 0))
        self._close()

    def _close(self, force: bool = False) -> None:
        for server in self._servers:
            server.force_exit = force
            server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves signals to us, since there may be two servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server_config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


def _bus(config: Config) -> Bus:
    clusters = [ClusterKey(key.get_secret_value()).cluster for key in config.cluster_key]
    return RedisBus(config.redis, clusters, config.site) if config.redis else SilentBus()


_WAYS_OUT = (
    "restore a backup elsewhere (concord restore), or have it rebuilt from the other instances (concord rebuild)"
)


def _check_catalog(data: Path) -> None:
    """An empty catalog beside content would look like a registry that has lost everything."""
    if not (data / PATH).exists() and any(data.glob("blobs/*/??/*")):
        raise CannotStart(f"{data} has content and no {PATH}: the catalog is lost; {_WAYS_OUT}")


@contextlib.contextmanager
def _listening(address: tuple[str, int]) -> Iterator[socket.socket]:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = "it is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else str(error)
        raise CannotStart(f"cannot listen on {host}:{port}: {reason}") from None
    with listening:
        yield listening


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data directory for this process alone. The kernel lets go when the process ends, however it does."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotStart(f"the data directory {data} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"the data directory {data} is in use by another process") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _raise_file_limit() -> None:
    """Connections and files may be as many as the system lets this user have, not as few as a shell begins with."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

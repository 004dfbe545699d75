"""The process that runs the instance, alone or with workers beside it."""

import asyncio
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import apsw
import uvloop
from prometheus_client import ProcessCollector

from crdt.frame import refusal
from registry import __version__
from registry.access.passwords import MIN_PASSWORD_CHARACTERS
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.adapters.hashing_threads import hashing_threads
from registry.adapters.http import HttpTransport
from registry.adapters.identity_providers import identity_providers
from registry.adapters.no_bus import SilentBus
from registry.app import http_context
from registry.cluster.rpc.keys import ClusterKey, channels
from registry.config import Config
from registry.errors import CannotStart, StorageFailed
from registry.event_loop.supervised import run_supervised
from registry.http.access.fair_turns import AT_ONCE
from registry.http.app import App
from registry.http.wire.process_relay import NoOtherProcess
from registry.instance import Instance
from registry.ports import Bus
from registry.runtime.certificates import CertificateExpiry, InstanceTls
from registry.runtime.connections import ConnectionCounts
from registry.runtime.drain import Drain
from registry.runtime.links import LinkListener, Mailboxes
from registry.runtime.relay import Relay
from registry.runtime.server import Server
from registry.runtime.signals import RELOAD
from registry.runtime.worker_links import WorkerLinks
from registry.shared_state import SharedState
from registry.storage.upload_homes import PRIMARY_SLOT
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord")

WAYS_OUT = "restore a backup elsewhere (concord restore), or have it rebuilt from the other instances (concord rebuild)"


@dataclass(frozen=True)
class Sockets:
    """The listening sockets of a primary."""

    public: socket.socket
    internal: socket.socket | None


@dataclass(frozen=True)
class Workers:
    """The mailboxes and the memory that a primary shares with the workers beside it."""

    mailboxes: Mailboxes
    counts: ConnectionCounts
    shared: SharedState


class SupervisorLink(Protocol):
    """The link of a primary to its supervisor."""

    def started(self) -> None:
        """Report that the catalog is open."""

    def answering(self) -> None:
        """Report that clients are answered."""

    def closing(self) -> None:
        """Report that the primary has stopped listening, and takes connections from workers for a moment only."""

    def deaths(self) -> Mapping[str, int]:
        """Return the number of processes that have died and were replaced, by role."""


class Unsupervised:
    """The link of a primary that runs alone."""

    def started(self) -> None:
        """Report to no other process."""

    def answering(self) -> None:
        """Report to no other process."""

    def closing(self) -> None:
        """Report to no other process."""

    def deaths(self) -> Mapping[str, int]:
        """Return no roles: a process that runs alone is not replaced."""
        return {}


def run_primary(
    config: Config,
    sockets: Sockets,
    signals: tuple[signal.Signals, ...],
    supervisor: SupervisorLink,
    tls: InstanceTls,
    workers: Workers | None = None,
    in_place: bool = False,
) -> int:
    """Serve until a signal ends it, beside `workers` if there are any. `in_place`: this primary replaces one that has
    just died. Return the exit status. Raises CannotStart."""
    uvloop.run(_serve(config, sockets, signals, supervisor, tls, workers, in_place))
    return 0


async def _serve(
    config: Config,
    sockets: Sockets,
    signals: tuple[signal.Signals, ...],
    supervisor: SupervisorLink,
    tls: InstanceTls,
    workers: Workers | None,
    in_place: bool,
) -> None:
    transport = HttpTransport(tls.peers, is_mutual=config.has_mutual_tls)
    issuers = identity_providers(config)
    if config.redis or config.peer:
        transport.open()  # now, while no request waits for the loop
    try:
        shared = workers.shared if workers is not None else SharedState.of(1, SystemClock())
        instance = Instance(
            config, SystemClock(), SystemDisk(config.data), _bus(config), transport, in_place, shared=shared
        )
        await instance.start()
        first = asyncio.create_task(instance.make_first_administrator(_admin_password(config)))
        if not instance.catalog.access.is_awaited:
            await first
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise CannotStart(f"the catalog in {config.data} is damaged ({error}); {WAYS_OUT}", "catalog-corrupt") from None
    except (apsw.Error, OSError, StorageFailed) as error:
        raise CannotStart(f"the data directory {config.data} cannot be used: {error}") from None
    ProcessCollector(registry=instance.metrics)
    instance.metrics.register(CertificateExpiry(tls))
    relay = Relay(workers.mailboxes) if workers is not None else NoOtherProcess()
    context = http_context(instance, supervisor.deaths, relay, issuers, hashing_threads(AT_ONCE))
    app = App(context, internal=sockets.internal is None)
    counts = workers.counts if workers is not None else ConnectionCounts(1)
    servers = [(Server(app, counts, instance.slot, tls.clients), sockets.public)]
    if sockets.internal is not None:
        mutual = tls.peers if config.has_mutual_tls else None
        internal = Server(App(context, registry=False), ConnectionCounts(1), instance.slot, mutual)
        servers.append((internal, sockets.internal))
    links = None
    if workers is not None:
        links = WorkerLinks(instance, app, LinkListener(workers.mailboxes.receiving[PRIMARY_SLOT], instance.clock))
    drain = Drain(instance, [server for server, _ in servers], supervisor.closing)
    for name in signals:
        asyncio.get_running_loop().add_signal_handler(name, drain.begin, "told to end by a signal")
    if tls:
        asyncio.get_running_loop().add_signal_handler(RELOAD, tls.reload)
    _log_addresses(config, instance, sockets)
    supervisor.started()
    watching = [
        first,
        asyncio.create_task(_report_answering(instance, supervisor)),
        asyncio.create_task(_drain_when_decommissioned(instance, drain)),
        asyncio.create_task(run_supervised(tls.watch)),
    ]
    await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in servers))
    if links is not None:
        await links.finish(drain.finishes_until)
    for task in watching:
        task.cancel()
    await instance.close()
    await transport.close()
    await issuers.close()
    log.info(LogEvent.INSTANCE_STOPPED, "ended")


def _admin_password(config: Config) -> str:
    """Return the first line of the file that the settings name; empty where they name none. Raises CannotStart."""
    if not config.admin_password_file:
        return ""
    file = Path(config.admin_password_file)
    try:
        password = file.read_text().partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"the password of admin_password_file cannot be read: {error}") from None
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise CannotStart(f"the password in {file} is too short: expected {MIN_PASSWORD_CHARACTERS} characters or more")
    return password


async def _report_answering(instance: Instance, supervisor: SupervisorLink) -> None:
    await instance.cluster.answers_clients.wait()
    supervisor.answering()


async def _drain_when_decommissioned(instance: Instance, drain: Drain) -> None:
    await instance.cluster.lifecycle.may_end.wait()
    drain.begin("it has left the cluster")


def _log_addresses(config: Config, instance: Instance, sockets: Sockets) -> None:
    name = "%(name)s, " if config.instance_name else ""
    site = " at site %(site)s" if config.site else ""
    log.info(
        LogEvent.INSTANCE_STARTED,
        f"Concord %(version)s, {name}instance %(instance)s{site}, serves %(scheme)s://%(address)s",
        version=__version__,
        instance=instance.catalog.instance_id,
        scheme="https" if config.tls_files else "http",
        address=_place(sockets.public),
        **({"name": config.instance_name} if config.instance_name else {}),
        **({"site": config.site} if config.site else {}),
    )
    log.info(LogEvent.DATA_DIRECTORY_OPENED, "the data directory is %(path)s", path=config.data.absolute())
    if sockets.internal is not None:
        log.info(
            LogEvent.INTERNAL_LISTENER_OPENED,
            "health, status, metrics and other instances are served at %(scheme)s://%(address)s",
            scheme="https" if config.has_mutual_tls else "http",
            address=_place(sockets.internal),
        )


def _place(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bus(config: Config) -> Bus:
    if not config.redis:
        return SilentBus()
    from registry.adapters.bus import RedisBus  # loads a library that takes a moment

    keys = [ClusterKey(key.get_secret_value()) for key in config.cluster_key]
    on_wire = frozenset(frames.cluster for key in keys for frames in key.frame_keys)
    return RedisBus(config.redis, channels(keys), config.site, partial(refusal, clusters=on_wire))

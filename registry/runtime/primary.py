"""The process that runs the instance, alone or with workers beside it."""

import asyncio
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import apsw
import uvloop
from prometheus_client import ProcessCollector

from crdt.frame import refusal
from registry import __version__
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.adapters.http import HttpTransport
from registry.adapters.no_bus import SilentBus
from registry.app import http_context
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.rpc.keys import ClusterKey
from registry.config import Config
from registry.errors import CannotStart, StorageFailed
from registry.http.app import App
from registry.instance import Instance
from registry.ports import Bus
from registry.runtime.drain import Drain
from registry.runtime.handover import Notes, Receiver
from registry.runtime.server import NoHandovers, Server
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord")

WAYS_OUT = "restore a backup elsewhere (concord restore), or have it rebuilt from the other instances (concord rebuild)"


@dataclass(frozen=True)
class Sockets:
    """The sockets of a primary, and the read lease that it shares."""

    public: socket.socket
    internal: socket.socket | None
    receiving: socket.socket | None = None
    """The receiving end of the workers' channel; None without workers."""
    lease: ReadLease | None = None
    """The read lease that workers share; None without workers."""


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
    in_place: bool = False,
) -> int:
    """Serve until a signal ends it. `in_place`: this primary replaces one that has just died. Return the exit
    status. Raises CannotStart."""
    uvloop.run(_serve(config, sockets, signals, supervisor, in_place))
    return 0


async def _serve(
    config: Config, sockets: Sockets, signals: tuple[signal.Signals, ...], supervisor: SupervisorLink, in_place: bool
) -> None:
    transport = HttpTransport()
    if config.redis or config.peer:
        transport.open()  # now, while no request waits for the loop
    try:
        instance = Instance(
            config, SystemClock(), SystemDisk(config.data), _bus(config), transport, sockets.lease, in_place
        )
        await instance.start()
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise CannotStart(f"the catalog in {config.data} is damaged ({error}); {WAYS_OUT}", "catalog-corrupt") from None
    except (apsw.Error, OSError, StorageFailed) as error:
        raise CannotStart(f"the data directory {config.data} cannot be used: {error}") from None
    ProcessCollector(registry=instance.metrics)
    receiver = _receiver(instance, sockets.receiving) if sockets.receiving is not None else None
    context = http_context(instance, supervisor.deaths)
    public = Server(App(context, internal=sockets.internal is None), receiver or NoHandovers())
    servers = [(public, sockets.public)]
    if sockets.internal is not None:
        servers.append((Server(App(context, registry=False), NoHandovers()), sockets.internal))
    if receiver is not None:
        receiver.start(public.adopt)
    drain = Drain(instance, [server for server, _ in servers], supervisor.closing)
    for name in signals:
        asyncio.get_running_loop().add_signal_handler(name, drain.begin, "told to end by a signal")
    _log_addresses(config, instance, sockets)
    supervisor.started()
    watching = [
        asyncio.create_task(_report_answering(instance, supervisor)),
        asyncio.create_task(_drain_when_decommissioned(instance, drain)),
    ]
    await asyncio.gather(*(server.serve(sockets=[listening]) for server, listening in servers))
    for task in watching:
        task.cancel()
    await instance.close()
    await transport.close()
    log.info(LogEvent.INSTANCE_STOPPED, "ended")


async def _report_answering(instance: Instance, supervisor: SupervisorLink) -> None:
    await instance.cluster.answers_clients.wait()
    supervisor.answering()


async def _drain_when_decommissioned(instance: Instance, drain: Drain) -> None:
    await instance.cluster.lifecycle.may_end.wait()
    drain.begin("it has left the cluster")


def _receiver(instance: Instance, receiving: socket.socket) -> Receiver:
    def note(notes: Notes) -> None:
        instance.traffic.add(notes.traffic)
        instance.traffic.cut_off += notes.cut_off
        instance.traffic.under_way += notes.under_way
        instance.take_worker_notes(notes.used, notes.corrupt)

    return Receiver(receiving, note, instance.cluster.site_lease.request_renewal, instance.clock)


def _log_addresses(config: Config, instance: Instance, sockets: Sockets) -> None:
    name = "%(name)s, " if config.instance_name else ""
    site = " at site %(site)s" if config.site else ""
    log.info(
        LogEvent.INSTANCE_STARTED,
        f"Concord %(version)s, {name}instance %(instance)s{site}, serves http://%(address)s",
        version=__version__,
        instance=instance.catalog.instance_id,
        address=_place(sockets.public),
        **({"name": config.instance_name} if config.instance_name else {}),
        **({"site": config.site} if config.site else {}),
    )
    log.info(LogEvent.DATA_DIRECTORY_OPENED, "the data directory is %(path)s", path=config.data.absolute())
    if sockets.internal is not None:
        log.info(
            LogEvent.INTERNAL_LISTENER_OPENED,
            "health, status, metrics and other instances are served at http://%(address)s",
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
    on_wire = frozenset(key.frames.cluster for key in keys)
    return RedisBus(config.redis, [key.cluster for key in keys], config.site, partial(refusal, clusters=on_wire))

"""A worker: a process that serves clients beside the primary (`http.worker_app`).

It reads the catalog and writes content files. What the primary has to commit, answer or know crosses to it on links
(`runtime.links`).
"""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass

import uvloop

from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog.catalog import PATH, stored_identity
from registry.catalog.database import Reads
from registry.cluster.rpc.keys import ClusterKey
from registry.config import Config
from registry.errors import ProcessUnreachable, StorageFailed
from registry.event_loop.now import now_s
from registry.http.oci.context import OwnUploadContext
from registry.http.oci.read_only import ReadOnlyApp
from registry.http.worker_app import WorkerApp
from registry.instance import MAINTENANCE_INTERVAL_S
from registry.ports import Clock
from registry.runtime.commit_link import Notes, PrimaryLink, RemoteCommits
from registry.runtime.links import LinkListener, Mailboxes
from registry.runtime.relay import Relay, RelayServer
from registry.runtime.server import Server
from registry.runtime.signals import END
from registry.settings.trusted_proxies import TrustedProxies
from registry.shared_state import SharedState
from registry.storage.disk_budget import DiskBudget
from registry.storage.store import BlobStore
from registry.storage.upload_homes import ProcessSlot
from registry.storage.upload_places import UploadPlaces
from registry.storage.uploads import Uploads
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.refusals import Refusals
from registry.units import GIB

log = EventLog("concord.workers")

NOTES_INTERVAL_S = 1.0
MAX_NOTED_AT_ONCE = 200
"""The most entries of each kind in one report."""
POLL_INTERVAL_S = 0.01


@dataclass(frozen=True)
class WorkerPlace:
    """The place of a worker: its slot, the listening socket, and the ways to the other processes."""

    slot: ProcessSlot
    public: socket.socket
    mailboxes: Mailboxes
    shared: SharedState


@dataclass(frozen=True)
class Links:
    """The links that a worker opens."""

    primary: PrimaryLink
    relay: Relay


def run_worker(config: Config, place: WorkerPlace) -> int:
    """Serve until the signal END. Return the exit status."""
    uvloop.run(_serve(config, place))
    return 0


async def _serve(config: Config, place: WorkerPlace) -> None:
    clock, disk = SystemClock(), SystemDisk(config.data)
    database, proxies = Reads(disk, PATH), TrustedProxies(config.proxies)
    links = Links(PrimaryLink(place.mailboxes), Relay(place.mailboxes))
    lease = place.shared.lease
    reading = ReadOnlyApp(database, disk, clock, lease, config.verify_after_s, config.log_requests, proxies)
    uploads = _uploads(config, place, database, BlobStore(disk, database), clock, links)
    app = WorkerApp(reading, uploads, links.primary, clock, proxies, config.log_requests)
    server, relayed = Server(app), RelayServer(app)
    listener = LinkListener(place.mailboxes.receiving[place.slot.number], clock)
    listener.start(lambda _, link: relayed.serve(link))
    linking = asyncio.create_task(links.primary.run())
    tasks = [
        linking,
        asyncio.create_task(_send_notes(reading, uploads.refusals, links.primary)),
        asyncio.create_task(_tidy(uploads.uploads)),
        asyncio.create_task(_release_primary(server, app, relayed, linking)),
    ]

    def end() -> None:
        until_s = place.shared.drain.finishes_until_s
        if until_s is not None:
            server.finish_by(now_s() + until_s - clock.steady_s(), config.drain_s)
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(END, end)
    await server.serve(sockets=[place.public])
    listener.close()
    relayed.close()
    links.relay.close()
    for task in tasks:
        task.cancel()
    database.close_reading()


def _uploads(
    config: Config,
    place: WorkerPlace,
    database: Reads,
    store: BlobStore,
    clock: Clock,
    links: Links,
) -> OwnUploadContext:
    usage = place.shared.usage.of(place.slot)
    budget = DiskBudget(int(config.disk_budget_gib * GIB), place.shared.usage)
    places = UploadPlaces(config.max_uploads, usage)
    uploads = Uploads(database, store, clock, places, budget, RemoteCommits(links.primary), usage)
    uploads.prepare()
    secrets = [key.get_secret_value() for key in config.cluster_key]
    keys = [ClusterKey(secret).uploads for secret in secrets]

    def own_keys() -> list[bytes]:
        return keys or [ClusterKey(stored_identity(database).secret.hex()).uploads]

    return OwnUploadContext(
        uploads=uploads,
        clock=clock,
        budget=budget,
        drain=place.shared.drain,
        slot=place.slot,
        instance=lambda: stored_identity(database).instance,
        keys=own_keys,
        database=database,
        refusals=Refusals(clock),
        relay=links.relay,
    )


async def _send_notes(reading: ReadOnlyApp, refusals: Refusals, primary: PrimaryLink) -> None:
    """Report to the primary periodically. A report that it has not taken is sent the next time."""
    notes, reported_under_way = Notes(), 0
    while True:
        await asyncio.sleep(NOTES_INTERVAL_S)
        if notes == Notes():
            traffic = reading.traffic
            used = [reading.used.pop() for _ in range(min(len(reading.used), MAX_NOTED_AT_ONCE))]
            more = traffic.under_way - reported_under_way
            corrupt, refused = reading.corrupt[:MAX_NOTED_AT_ONCE], dict(refusals.counts)
            notes = Notes(traffic.take(), traffic.cut_off, more, used, corrupt, refused)
            traffic.cut_off, reported_under_way = 0, traffic.under_way
            del reading.corrupt[:MAX_NOTED_AT_ONCE]
            refusals.counts.clear()
        if notes != Notes():
            with suppress(ProcessUnreachable):
                await primary.send(notes)
                notes = Notes()


async def _tidy(uploads: Uploads) -> None:
    """Tidy the uploads of this process, for ever."""
    while True:
        await asyncio.sleep(MAINTENANCE_INTERVAL_S)
        try:
            await uploads.tidy()
        except (StorageFailed, ProcessUnreachable) as error:
            log.error(LogEvent.MAINTENANCE_FAILED, "maintenance failed: %(error)s", error=error)
        except Exception:
            log.exception(LogEvent.MAINTENANCE_FAILED, "maintenance failed")


async def _release_primary(server: Server, app: WorkerApp, relayed: RelayServer, linking: "asyncio.Task[None]") -> None:
    """Let the primary end once no request here needs it any more: those that send content of this disk may go on."""
    await server.has_lingered.wait()
    while app.needs_primary or relayed.is_busy:
        await asyncio.sleep(POLL_INTERVAL_S)
    linking.cancel()

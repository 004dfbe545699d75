"""A worker without the sockets of its process: what it serves, and what crosses between it and its primary.

It reads the catalog and writes content files. What the primary has to commit, answer or know crosses to it on links
(`runtime.frames`). Simulations run this code over links of their own.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import apsw

from registry.audit.log import AuditLog
from registry.catalog.catalog import PATH, stored_identity
from registry.catalog.database import Reads
from registry.cluster.rpc.keys import ClusterKey
from registry.config import Config
from registry.errors import ProcessUnreachable, StorageFailed
from registry.http.access.gate import Gate
from registry.http.access.identity_checks import RelayedIdentityChecks
from registry.http.access.password_checks import Logins, RelayedPasswordChecks
from registry.http.access.sources import access_view
from registry.http.access.verified import VerifiedPasswords
from registry.http.oci.context import OwnUploadContext
from registry.http.oci.read_only import ReadOnlyApp
from registry.http.worker_app import WorkerApp
from registry.instance import MAINTENANCE_INTERVAL_S
from registry.ports import Clock, Disk
from registry.runtime.commit_link import Introduction, Notes, PrimaryLink, RemoteCommits
from registry.runtime.frames import LinkOpener, LinkSource
from registry.runtime.relay import Relay, RelayServer
from registry.settings.trusted_proxies import TrustedProxies
from registry.shared_state import SharedState
from registry.storage.disk_budget import DiskBudget
from registry.storage.shared_usage import OwnUsage
from registry.storage.store import BlobStore
from registry.storage.upload_homes import ProcessSlot
from registry.storage.upload_places import UploadPlaces
from registry.storage.uploads import Uploads
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.refusals import Refusals
from registry.units import GIB, MIB

log = EventLog("concord.workers")

NOTES_INTERVAL_S = 1.0
PREPARE_INTERVAL_S = 1.0
"""Time after which a start that the disk has refused is tried again."""
MAX_NOTED_AT_ONCE = 200
"""The most entries of each kind in one report."""


class WorkerService:
    """A worker's application, its links and its background tasks. Call `start` before use and `close` after."""

    def __init__(
        self, config: Config, slot: ProcessSlot, shared: SharedState, disk: Disk, clock: Clock, opener: LinkOpener
    ) -> None:
        """Opens the catalog for reading."""
        self._database, proxies = Reads(disk, PATH), TrustedProxies(config.proxies)
        self._usage = shared.usage.of(slot)
        introduction = Introduction(slot.number, self._usage.begin())
        self.primary, self._relay = PrimaryLink(opener, introduction), Relay(opener)
        audit = AuditLog(disk, clock, slot.number, config.audit, config.audit_mib * MIB)
        self.reading = ReadOnlyApp(
            self._database, disk, clock, shared.lease, config.verify_after_s, config.log_requests
        )
        store = BlobStore(disk, self._database)
        identity = _Identity(self._database, self.primary, [key.get_secret_value() for key in config.cluster_key])
        self.uploads = _own_uploads(
            config, slot, shared, self._database, store, clock, self.primary, self._relay, identity
        )
        self._are_uploads_ready = asyncio.Event()
        gate = _gate(config, shared, self._database, clock, self._relay, identity, audit)
        self.app = WorkerApp(
            gate, self.reading, self.uploads, self._are_uploads_ready, self.primary, clock, proxies, config.log_requests
        )
        self._relayed = RelayServer(self.app)
        self._source: LinkSource
        self._linking: asyncio.Task[None]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, source: LinkSource) -> None:
        """Take the links that other processes open, open those to the primary, and begin the background tasks."""
        self._source = source
        source.start(lambda _, link: self._relayed.serve(link))
        self._linking = asyncio.create_task(self.primary.run())
        self._tasks = [
            self._linking,
            asyncio.create_task(
                _send_notes(self.reading, self._usage, self.uploads.refusals, self.app.logins, self.primary)
            ),
            asyncio.create_task(self._keep_uploads()),
        ]

    async def _keep_uploads(self) -> None:
        """Take over the uploads of this process' slot, and tidy them for ever."""
        await self.primary.admitted.wait()
        while not self._are_uploads_ready.is_set():
            try:
                self.uploads.uploads.prepare()
                self._are_uploads_ready.set()
            except (OSError, apsw.Error) as error:
                log.error(LogEvent.MAINTENANCE_FAILED, "maintenance failed: %(error)s", error=error)
                await asyncio.sleep(PREPARE_INTERVAL_S)
        await _tidy(self.uploads.uploads)

    @property
    def needs_primary(self) -> bool:
        """Return whether a request under way needs the primary, or is another process'."""
        return self.app.needs_primary > 0 or self._relayed.is_busy

    async def finish(self, until: float | None, drain_s: float) -> None:
        """Wait until no request of another process is under way here, up to a time of the loop."""
        await self._relayed.finish(until, drain_s)
        await self.app.audit.close()

    def release_primary(self) -> None:
        """End the commit link: nothing here needs the primary any more."""
        self._linking.cancel()

    def close(self) -> None:
        """End all links and tasks."""
        self._source.close()
        self._relayed.close()
        self._relay.close()
        for task in self._tasks:
            task.cancel()
        self._database.close_reading()


class _Known(NamedTuple):
    """The id of an instance, and its keys."""

    instance: str
    keys: Sequence[ClusterKey]


class _Identity:
    """The identity of this instance in a worker. It is read again after each new link to a primary, since one that has
    started may have a new id."""

    def __init__(self, database: Reads, primary: PrimaryLink, secrets: Sequence[str]) -> None:
        self._database = database
        self._primary = primary
        self._secrets = secrets
        self._admissions = -1
        self._known: _Known

    def current(self) -> _Known:
        """Return the identity as the catalog has it."""
        if self._primary.admissions != self._admissions:
            stored = stored_identity(self._database)
            secrets = self._secrets or [stored.secret.hex()]
            self._known = _Known(stored.instance, [ClusterKey(secret) for secret in secrets])
            self._admissions = self._primary.admissions
        return self._known


def _own_uploads(
    config: Config,
    slot: ProcessSlot,
    shared: SharedState,
    database: Reads,
    store: BlobStore,
    clock: Clock,
    primary: PrimaryLink,
    relay: Relay,
    identity: _Identity,
) -> OwnUploadContext:
    usage = shared.usage.of(slot)
    budget = DiskBudget(int(config.disk_budget_gib * GIB), shared.usage)
    places = UploadPlaces(config.max_uploads, usage)
    uploads = Uploads(database, store, clock, places, budget, RemoteCommits(primary), usage)
    return OwnUploadContext(
        uploads=uploads,
        clock=clock,
        budget=budget,
        drain=shared.drain,
        slot=slot,
        instance=lambda: identity.current().instance,
        keys=lambda: [key.uploads for key in identity.current().keys],
        database=database,
        refusals=Refusals(clock),
        relay=relay,
        namespaces=config.name,
    )


def _gate(
    config: Config,
    shared: SharedState,
    database: Reads,
    clock: Clock,
    relay: Relay,
    identity: _Identity,
    audit: AuditLog,
) -> Gate:
    def keys() -> list[bytes]:
        return [key.tokens for key in identity.current().keys]

    view = access_view(database)
    checks = RelayedPasswordChecks(relay, VerifiedPasswords(shared.verified, keys))
    identities = RelayedIdentityChecks(relay, view, keys, clock)
    return Gate(view, keys, clock, checks, identities, audit, config)


async def _send_notes(
    reading: ReadOnlyApp, usage: OwnUsage, refusals: Refusals, logins: Logins, primary: PrimaryLink
) -> None:
    """Report to the primary periodically. A report that it has not taken is sent the next time."""
    notes = Notes()
    while True:
        await asyncio.sleep(NOTES_INTERVAL_S)
        usage.set_requests(reading.traffic.under_way)
        if notes == Notes():
            traffic = reading.traffic
            used = [reading.used.pop() for _ in range(min(len(reading.used), MAX_NOTED_AT_ONCE))]
            corrupt, refused = reading.corrupt[:MAX_NOTED_AT_ONCE], dict(refusals.counts)
            notes = Notes(traffic.take(), traffic.cut_off, used, corrupt, refused, logins.take())
            traffic.cut_off = 0
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

"""One running registry: builds catalog, content, uploads and the cluster node. `registry.app` gives the handlers the
parts that they use."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from prometheus_client.registry import CollectorRegistry

from crdt.change import Change
from registry.access.changes import create_bootstrap
from registry.access.facts import OPERATOR
from registry.access.passwords import SALT_SIZE, hash_password
from registry.audit.log import AuditLog
from registry.capabilities import OWN, Abilities
from registry.catalog.access import change_access
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import CommitObserver
from registry.catalog.compactor import Compactor
from registry.catalog.credential_uses import CredentialUses
from registry.catalog.understanding import blocking_all
from registry.cluster.node import Cluster
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.sessions import SeenRequests
from registry.commit_steps import CommitSteps
from registry.config import Config
from registry.errors import StorageFailed
from registry.event_loop.ending import end
from registry.oci.names import Digest
from registry.ports import Bus, Clock, Disk, PeerTransport
from registry.shared_state import SharedState
from registry.storage.checked import Corrupt, Corruption
from registry.storage.disk_budget import DiskBudget
from registry.storage.leftovers import Leftovers
from registry.storage.store import BlobStore
from registry.storage.upload_commits import CatalogCommits
from registry.storage.upload_homes import PRIMARY_SLOT
from registry.storage.upload_places import UploadPlaces
from registry.storage.uploads import EXPIRY_MS, Uploads
from registry.telemetry.counters import PeerRequests, Traffic
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.refusals import Refusals
from registry.units import DAY_S, GIB, MIB

log = EventLog("concord.instance")

BOOTSTRAP_NAME = "admin"
AWAITING_POLL_S = 0.5
MAINTENANCE_INTERVAL_S = 30.0
SWEEP_INTERVAL_S = DAY_S
"""Only a kill leaves files behind, and every start sweeps anyway."""


class Instance:
    """One running registry over a data directory and the four ports. Call `start` before use and `close` after."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        disk: Disk,
        bus: Bus,
        transport: PeerTransport,
        in_place: bool = False,
        abilities: Abilities = OWN,
        observers: Sequence[CommitObserver] = (),
        shared: SharedState | None = None,
    ) -> None:
        """Opens the catalog. `in_place` of a process that has just died; `abilities` are those of this version, but in
        simulations of a later one; `observers` are the checkers of simulations; `shared` is the memory that the
        processes of the instance share, if there are several. Raises CannotStart, and what a corrupt database
        raises."""
        self.config = config
        self.clock = clock
        self.disk = disk
        self._bus = bus
        self.transport = transport
        self.shared = shared or SharedState.of(1, clock)
        self.lease = self.shared.lease
        self._in_place = in_place
        self.abilities = abilities
        self.catalog = Catalog(disk, clock, abilities.kinds, observers)
        self.compactor = Compactor(self.catalog.replica, self.catalog.database)
        self.store = BlobStore(disk, self.catalog.database)
        self.leftovers = Leftovers(self.store, self.catalog.database)
        self.slot = self.shared.slot(PRIMARY_SLOT)
        usage = self.shared.usage.of(self.slot)
        self.budget = DiskBudget(int(config.disk_budget_gib * GIB), self.shared.usage)
        self.upload_commits = CatalogCommits(self.catalog, self.store, clock, self.budget, self._await_acknowledgements)
        places = UploadPlaces(config.max_uploads, usage)
        self.uploads = Uploads(
            self.catalog.database, self.store, clock, places, self.budget, self.upload_commits, usage
        )
        self.cluster: Cluster
        self.seen_requests = SeenRequests()
        self.traffic = Traffic()
        self.refusals = Refusals(clock)
        self.metrics = CollectorRegistry()
        """The metrics that the process adds. Not the library's global registry: many instances may run in a process."""
        self.peer_requests = PeerRequests()
        self.credential_uses = CredentialUses(self.catalog.database, clock)
        self.audit = AuditLog(disk, clock, PRIMARY_SLOT, config.audit, config.audit_mib * MIB)
        self.drain = self.shared.drain
        self._maintenance: asyncio.Task[None] | None = None
        self._sweep_due_s = 0.0
        """The time of the next sweep for files without rows, in steady seconds: soon after the start, then daily."""
        self._repairs: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        self.store.prepare()
        self.uploads.prepare()  # frees unneeded space before anything is written
        await self.leftovers.begin()
        config = self.config
        joins = bool(config.cluster_key) and bool(config.redis or config.peer)
        await self.catalog.start(awaits_access=joins and not config.bootstrap)
        if self.catalog.access.is_awaited:
            log.warning(
                LogEvent.ACCESS_AWAITED,
                "this instance is new and serves no client before it has met a member of its cluster, which may "
                "enforce access control; start the first instance of a new cluster with --bootstrap",
            )
        secrets = [key.get_secret_value() for key in self.config.cluster_key] or [self.catalog.secret.hex()]
        keys = [ClusterKey(secret) for secret in secrets]
        self.cluster = Cluster(
            self.config,
            self.catalog,
            self.store,
            self.budget,
            self.clock,
            self._bus,
            self.transport,
            keys,
            self.lease,
            self._in_place,
            self.abilities,
        )
        steps = CommitSteps(self.cluster, self.catalog.queries, self.compactor, self.leftovers.mark)
        self.catalog.database.attach(steps)
        self.compactor.request_all_due()
        self.cluster.start()
        self._maintenance = asyncio.create_task(self._maintain())

    async def make_first_administrator(self, password: str) -> None:
        """Make the bootstrap account with a password, unless that is empty or there is a fact of access control. Its id
        is the same at every instance, so that those of a cluster that all start for the first time make one. Waits
        until it is known whether the cluster has facts: an old password must not come back with an instance that is
        added."""
        while password and self.catalog.access.is_awaited:
            await asyncio.sleep(AWAITING_POLL_S)
        if not password or self.catalog.access.digest:
            return
        salt = self.clock.entropy(SALT_SIZE)
        hashed = await asyncio.get_running_loop().run_in_executor(None, hash_password, password, salt)
        plan = partial(create_bootstrap, name=BOOTSTRAP_NAME, password_hash=hashed)
        catalog = self.catalog
        await catalog.database.write(lambda tx: change_access(tx, catalog.documents, self.clock, OPERATOR, plan))

    async def close(self) -> None:
        """Stop the tasks, and finish the writes that are under way."""
        if self._maintenance is not None:
            await end([self._maintenance])
            await self.cluster.close()
        await self.leftovers.mark.settle()
        with suppress(StorageFailed):
            await self.credential_uses.save()
        await self.audit.close()
        await self.catalog.stop()

    @property
    def ready(self) -> bool:
        serves = self._maintenance is not None and not self.drain.draining and self.cluster.ready
        return serves and not self.catalog.access.is_awaited and blocking_all(self.catalog.database) is None

    async def _await_acknowledgements(self, change: Change) -> None:
        await self.cluster.await_acknowledgements(change)

    def take_worker_notes(
        self, used: Iterable[Digest], corrupt: Iterable[Corruption], credentials: Iterable[str]
    ) -> None:
        """Apply the report of a worker: the blobs it has read, the corruption it has met, and the credentials it has
        accepted."""
        self.credential_uses.note(credentials)
        for digest in used:
            self.cluster.evictor.touch(digest)
        for digest, offset in corrupt:
            repair = self.cluster.blob_reader.quarantine_and_repair(digest, Corrupt(offset, "a worker met it"))
            task = asyncio.create_task(repair)
            self._repairs.add(task)
            task.add_done_callback(self._repairs.discard)

    async def _maintain(self) -> None:
        """Compact documents with a long log and tidy uploads, for ever. The first round waits: the digest of a large
        document takes seconds of processor time, which the start needs."""
        while True:
            await asyncio.sleep(MAINTENANCE_INTERVAL_S)
            try:
                await self.cluster.audit_heads.refresh()
                await self.credential_uses.save()
                await self.compactor.compact_due()
                await self.uploads.tidy()
                await self.upload_commits.forget_ended(self.clock.now_ms() - 2 * EXPIRY_MS)
                if self.clock.steady_s() >= self._sweep_due_s:
                    self._sweep_due_s = self.clock.steady_s() + SWEEP_INTERVAL_S
                    await self.leftovers.sweep()
            except StorageFailed as error:
                log.error(LogEvent.MAINTENANCE_FAILED, "maintenance failed: %(error)s", error=error)
            except Exception:
                log.exception(LogEvent.MAINTENANCE_FAILED, "maintenance failed")

"""The cluster node: builds the parts of an instance that deal with other instances, and runs their tasks.

The parts are built from the bottom up: each gets the parts that it works with as arguments.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from crdt.change import Change
from registry.audit.heads import AuditHeads
from registry.capabilities import OWN, Abilities
from registry.catalog.catalog import Catalog
from registry.catalog.queries import document_name
from registry.catalog.understanding import require_understood
from registry.cluster.membership.audit_witness import AuditWitness
from registry.cluster.membership.clock_offsets import ClockOffsets
from registry.cluster.membership.content_handover import ContentHandover
from registry.cluster.membership.decommission import Decommission
from registry.cluster.membership.discovery import Discovery
from registry.cluster.membership.events import MembershipEvents
from registry.cluster.membership.heartbeats import Heartbeats, OwnHeartbeat
from registry.cluster.membership.incarnation import CloneGuard, Incarnation, StaleNotices
from registry.cluster.membership.join import Join
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.liveness import LivenessProbe
from registry.cluster.membership.members import Members
from registry.cluster.membership.membership_log import MembershipLog
from registry.cluster.membership.reachability import Reachability
from registry.cluster.membership.readiness import Readiness
from registry.cluster.membership.removal import Removals
from registry.cluster.membership.store import MemberStore
from registry.cluster.membership.watch import MemberWatch
from registry.cluster.placement.eviction import Evictor
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.replicator import Replicator
from registry.cluster.placement.write_concern import WriteConcern
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.change_applier import ChangeApplier
from registry.cluster.replication.diff_requests import DiffRequests
from registry.cluster.replication.direct_push import DirectPush
from registry.cluster.replication.document_advances import DocumentAdvances
from registry.cluster.replication.frame_sender import FrameSender
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.heartbeat_reactions import HeartbeatReactions
from registry.cluster.replication.lag import ReplicationDelays
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.replication.miss_state import MissState
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.replication.recent_frames import RecentFrames
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.transfer.blob_reader import BlobReader
from registry.cluster.transfer.distrust import Distrust
from registry.cluster.transfer.locator import Locator
from registry.cluster.transfer.range_fetch import Holders
from registry.cluster.transfer.range_reader import RangeReader
from registry.cluster.transfer.scrubber import Scrubber
from registry.cluster.transfer.transfer import Transfers
from registry.cluster.transfer.whole_policy import WholePolicy
from registry.config import Config
from registry.event_loop.ending import end
from registry.event_loop.supervised import run_supervised
from registry.oci.names import Repository
from registry.ports import Bus, Clock, PeerTransport
from registry.storage.disk_budget import DiskBudget
from registry.storage.space import DiskSpace
from registry.storage.store import BlobStore


class Cluster:
    """All parts of one instance's cluster node and their tasks. Alone, it has nothing to do.

    Has as many attributes as there are parts: this is where they are wired, and where handlers find them.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        store: BlobStore,
        budget: DiskBudget,
        clock: Clock,
        bus: Bus,
        transport: PeerTransport,
        keys: Sequence[ClusterKey],
        lease: ReadLease,
        in_place: bool = False,
        abilities: Abilities = OWN,
    ) -> None:
        """`in_place` of a process that has just died: clients are to wait for a moment only."""
        self._in_place = in_place
        self._catalog = catalog
        self.bus = bus
        self.keys = keys
        self.policy = config.rules
        self.rules_without_effect = self.policy.without_effect()
        self.space = DiskSpace(store.disk)
        self.audit_heads = AuditHeads(store.disk)
        self.lifecycle = Lifecycle()
        self.events = MembershipEvents()
        self.advances = DocumentAdvances()
        self.answers_clients = self.lifecycle.answers_clients
        self._build_replication(config, catalog, clock, transport, abilities)
        self._build_membership(config, catalog, clock, abilities)
        self._build_site_lease(config, clock, lease)
        self._build_placement(config, catalog, store, budget, clock)
        self._build_stages(config, catalog)
        self._watch_members(config, clock)
        self._tasks: list[asyncio.Task[None]] = []

    def _build_replication(
        self, config: Config, catalog: Catalog, clock: Clock, transport: PeerTransport, abilities: Abilities
    ) -> None:
        self.members = Members(catalog.instance_id, config.site, self.events, config.advertise_site)
        self.members.own_name = config.instance_name
        self.member_store = MemberStore(catalog.database, self.members, clock)
        self.member_store.load()
        self.peers = PeerClient(transport, self.members, clock, self.keys, catalog.access, abilities)
        self.acknowledgements = Acknowledgements(self.members)
        recent_frames = RecentFrames()
        self.incarnation = Incarnation(catalog.incarnation, self.acknowledgements, recent_frames)
        self.frame_sender = FrameSender(
            self.bus, self.keys, self.members, self.incarnation, recent_frames, self.acknowledgements, abilities,
            catalog.access,
        )  # fmt: skip
        self.direct_push = DirectPush(self.peers, self.members, self.acknowledgements, self.incarnation, recent_frames)
        self.anti_entropy = AntiEntropy(catalog, self.peers, self.members, self.advances)
        self.delays = ReplicationDelays(self.members, clock)
        self.locator = Locator(self.peers, self.members)
        self.bodies = ManifestBodies(catalog, self.peers, self.members, self.locator, self.anti_entropy)
        self.clones = CloneGuard(catalog, self.incarnation)
        outcomes = Counter[str]()
        self.diff_requests = DiffRequests(catalog, self.members, self.anti_entropy, self.advances)
        self.applier = ChangeApplier(catalog, self.members, self.frame_sender, self.diff_requests, outcomes)
        self.gossip = Gossip(
            self.bus, clock, self.keys, abilities, self.members, self.incarnation, self.clones, self.acknowledgements,
            self.applier, outcomes, catalog.access,
        )  # fmt: skip
        self.advances.connect(self.applier, self.bodies)

    def _build_membership(self, config: Config, catalog: Catalog, clock: Clock, abilities: Abilities) -> None:
        self.own_heartbeat = OwnHeartbeat(
            config, abilities, catalog, clock, self.members, self.incarnation, self.lifecycle, self.anti_entropy,
            self.space, self.audit_heads,
        )  # fmt: skip
        self.discovery = Discovery(
            config.peer, config.own_url, self.members, self.peers, self.own_heartbeat, self.incarnation, self.clones
        )
        self.liveness = LivenessProbe(config.site, self.discovery.probe)
        self.stale_notices = StaleNotices(self.members, self.discovery.send_handshake)
        self.membership_log = MembershipLog(self.members)
        self.removals = Removals(
            catalog, clock, self.members, self.member_store, self.membership_log, self.incarnation, self.lifecycle
        )
        self.heartbeats = Heartbeats(
            self.own_heartbeat, self.frame_sender, self.members, self.removals, self.member_store
        )

    def _build_site_lease(self, config: Config, clock: Clock, lease: ReadLease) -> None:
        self.site_lease = SiteLease(
            lease, clock, self.members, self.peers, self.liveness, self.anti_entropy, self.acknowledgements,
            self.incarnation, self.own_heartbeat, self.lifecycle, bool(config.redis or config.peer),
            self.discovery.introductions,
        )  # fmt: skip
        self.misses = MissState(self.members, lease, self._catalog.replica)
        self.reactions = HeartbeatReactions(
            self.members, self.incarnation, self.acknowledgements, self.heartbeats, self.anti_entropy,
            self.site_lease, self.misses,
        )  # fmt: skip

    def _build_placement(
        self, config: Config, catalog: Catalog, store: BlobStore, budget: DiskBudget, clock: Clock
    ) -> None:
        """Build what keeps content: transfers, replicas, eviction, garbage collection, scrubbing."""
        keeps = not config.proxy_instance
        distrust = Distrust()
        self.transfers = Transfers(
            store, budget, catalog.database, self.peers, self.members, self.locator, distrust, clock,
            config.holder_wait_s,
        )  # fmt: skip
        self.replicator = Replicator(
            self.policy, keeps, catalog.queries, self.members, self.locator, self.transfers, config.copy_mib_s
        )
        self.write_concern = WriteConcern(
            self.policy, keeps, catalog.queries, self.members, self.peers, self.anti_entropy, self.bodies,
            self.transfers, self.replicator, config.acknowledge_timeout_s,
        )  # fmt: skip
        self.garbage_collector = GarbageCollector(
            catalog, store, self.members, self.incarnation, self.peers, self.anti_entropy,
            config.gc_grace_s, config.gc_interval_s,
        )  # fmt: skip
        self.evictor = Evictor(
            budget, catalog, store, self.members, self.peers, self.replicator, self.garbage_collector, clock
        )
        holders = Holders(self.peers, self.members, self.locator, distrust, config.holder_wait_s)
        self.ranges = RangeReader(holders, store, WholePolicy(config.fetch_whole, self.replicator.is_assigned))
        self.blob_reader = BlobReader(catalog, store, self.transfers, self.ranges, clock, config.verify_after_s)
        self.scrubber = Scrubber(config, catalog, store, self.blob_reader, self.bodies, clock)

    def _build_stages(self, config: Config, catalog: Catalog) -> None:
        """Build what moves the instance from one stage to the next: the join and the decommission."""
        self.reachability = Reachability(self.members, self.peers, self.own_heartbeat, self.discovery.addresses)
        self.join = Join(
            self.lifecycle, catalog, self.members, self.discovery, self.anti_entropy, self.site_lease,
            self.membership_log, bool(config.redis),
        )  # fmt: skip
        self.readiness = Readiness(self.lifecycle, self.peers, self.reachability, self.site_lease, self.reactions)
        self.handover = ContentHandover(catalog, self.blob_reader, self.members, self.peers, self.anti_entropy)
        self.decommission = Decommission(
            self.lifecycle, self.members, self.handover, self.removals, self.heartbeats,
            (self.replicator, self.write_concern, self.evictor),
        )  # fmt: skip

    def _watch_members(self, config: Config, clock: Clock) -> None:
        self.offsets = ClockOffsets(clock)
        self.audit_witness = AuditWitness()
        self.watch = MemberWatch(
            self.members, self.policy, not config.proxy_instance, clock, self.offsets, self.space,
            self.discovery.exchange_handshake,
        )  # fmt: skip
        self.events.connect(
            heard=(self.membership_log, self.reactions, self.offsets, self.reachability, self.audit_witness),
            proof=self.liveness,
            stale=self.stale_notices,
        )

    def start(self) -> None:
        """Begin the tasks."""
        self.join.limit_clients_wait(self._in_place)
        for work in (
            self.gossip.run, self.applier.run, self.site_lease.run, self.direct_push.run, self.anti_entropy.run,
            self.bodies.run, self.replicator.run, self.garbage_collector.run, self.evictor.run, self.scrubber.run,
            self.watch.run, self.reachability.run, self.heartbeats.run, self.discovery.run, self.join.run,
            self.decommission.run, self.misses.run,
        ):  # fmt: skip
            self._tasks.append(asyncio.create_task(run_supervised(work)))

    async def close(self) -> None:
        for early in (self.stale_notices, self.clones, self.heartbeats):
            early.close()
        await end(self._tasks)
        for part in (
            self.liveness, self.direct_push, self.discovery, self.diff_requests, self.anti_entropy, self.replicator,
            self.locator, self.transfers, self.ranges, self.blob_reader, self.bodies,
        ):  # fmt: skip
            part.close()

    # For handlers

    @property
    def ready(self) -> bool:
        """Return whether this instance shows what its site shows."""
        return self.readiness.is_ready

    async def await_acknowledgements(self, change: Change) -> None:
        """Wait until a committed change may be answered: it is safe elsewhere where no frame carries it, and the own
        site has it, or is late."""
        await self.bodies.deposit(change)
        await self.acknowledgements.wait(change.commit)

    async def read_repair(self, repository: Repository) -> None:
        """Ask the members that may know more of a repository, before a miss is answered. What was missing may be here
        after that, by an answer or by a frame that came meanwhile. Raises NeedsUpgrade where the repository is not
        understood."""
        document, candidates = document_name(repository), self.misses.members_to_ask()
        await self.anti_entropy.read_repair.before_miss(document, candidates)
        require_understood(self._catalog.database, document)

    async def sync_before_delete(self, repository: Repository) -> None:
        """Fetch what reachable members know more of a repository, so that a delete deletes that too."""
        await self.anti_entropy.pull_document(document_name(repository), self.members.reachable())

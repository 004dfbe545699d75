"""The cluster node: wires gossip, anti-entropy, membership and placement, and runs their tasks."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from crdt.change import Change
from crdt.vector import Vector
from registry import __version__
from registry.capabilities import OWN, Abilities
from registry.catalog.catalog import Catalog
from registry.catalog.members import all_members, all_sync_points, drop_members, save_members
from registry.catalog.membership import remove_member, removed_members
from registry.catalog.queries import document_name
from registry.catalog.understanding import require_understood
from registry.cluster.membership.clock_offsets import ClockOffsets
from registry.cluster.membership.decommission import Decommission
from registry.cluster.membership.introductions import Introductions
from registry.cluster.membership.liveness import LivenessProbe, MemberRecords
from registry.cluster.membership.members import HEARTBEAT_S, Member, Members
from registry.cluster.membership.membership_log import MembershipLog
from registry.cluster.membership.reachability import Reachability
from registry.cluster.membership.watch import Watch
from registry.cluster.placement.eviction import Evictor
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.replicator import Replicator
from registry.cluster.placement.write_concern import WriteConcern
from registry.cluster.replication.acknowledgements import Acknowledgements
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.direct_push import DirectPush
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.lag import ReplicationDelays
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.client import PeerClient
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import Handshake, Heartbeat
from registry.cluster.transfer.blob_reader import BlobReader
from registry.cluster.transfer.locator import Locator
from registry.cluster.transfer.scrubber import Scrubber
from registry.cluster.transfer.transfer import Transfers
from registry.config import Config
from registry.errors import StorageFailed
from registry.event_loop.ending import end
from registry.event_loop.supervised import run_supervised
from registry.oci.names import Repository
from registry.ports import Bus, Clock, PeerTransport, PeerUnreachable
from registry.storage.disk_budget import DiskBudget
from registry.storage.space import DiskSpace
from registry.storage.store import BlobStore
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

FRAME_DELIVERY_S = 0.3
STALE_AFTER_S = 2.0
GREETING_DELAY_S = 0.01  # for each member, so that many who start together are not answered by all each time
JOIN_POLL_S = 0.1
JOIN_ALONE_S = 1.0
JOIN_UNREACHED_S = 10.0
JOIN_TIMEOUT_S = 30.0
CLIENTS_WAIT_S = 10.0
CLIENTS_WAIT_IN_PLACE_S = 0.5  # so that another takes a dead process's place within a second
MAX_ADDRESSES = 1000
DECOMMISSION_LINGER_S = 2.0
BUMP_INTERVAL_S = 5.0


class Cluster:
    """All parts of one instance's cluster node and their tasks. Alone, it has nothing to do."""

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
        self._clients_wait_s = CLIENTS_WAIT_IN_PLACE_S if in_place else CLIENTS_WAIT_S
        self._config = config
        self._abilities = abilities
        self._catalog = catalog
        self._clock = clock
        self.bus = bus
        self.keys = keys
        self.members = Members(catalog.instance_id, config.site, config.advertise_site)
        self.members.own_name = config.instance_name
        self.members.load(all_members(catalog.database), all_sync_points(catalog.database))
        self.members.remove(removed_members(catalog.database) - {catalog.instance_id})
        self.members.on_heard.append(self._heard)
        self.membership_log = MembershipLog(self.members)
        self.acknowledgements = Acknowledgements(self.members)
        self.gossip = Gossip(
            catalog, bus, keys, self.members, self.acknowledgements, catalog.incarnation, clock, abilities
        )
        self.peers = PeerClient(transport, self.members, clock, keys, abilities)
        self.anti_entropy = AntiEntropy(catalog, self.peers, self.members)
        self.delays = ReplicationDelays(self.members, clock)
        self.locator = Locator(self.peers, self.members)
        self.transfers = Transfers(
            store, budget, catalog.database, self.peers, self.members, self.locator, clock, config.hold_s
        )
        self.bodies = ManifestBodies(catalog, self.peers, self.members, self.locator, self.anti_entropy)
        self._keep_site_current(config, lease)
        self._keep_content(config, store, budget)
        self.space = DiskSpace(store.disk)
        self.offsets = ClockOffsets(clock)
        self.watch = Watch(
            self.members, self.policy, not config.front_end, clock, self.offsets, self.space,
            self._exchange_handshake,
        )  # fmt: skip
        self.gossip.on_clone_detected = self.on_clone_detected
        self.members.on_stale_incarnation = self._on_stale_incarnation
        self.members.on_removed_member_returned = self._on_removed_member_returned
        self.liveness = LivenessProbe(config.site, self._probe)
        self.members.on_unproven = self.liveness.request
        self.gossip.on_incomplete = self.anti_entropy.request_diff
        self.anti_entropy.on_advanced = self.advanced
        self._addresses = list(config.peer)
        self.reachability = Reachability(self.members, self.peers, self.heartbeat, self._addresses)
        self._tasks: list[asyncio.Task[None]] = []
        self._ahead_since: dict[str, float] = {}
        self._records = MemberRecords()
        self._silent: set[str] = set()
        """Addresses that were logged as giving no answer."""
        self._joined = False
        self._began = asyncio.get_running_loop().time()
        self._greeting: asyncio.TimerHandle | None = None
        self._bumping: asyncio.Task[None] | None = None
        self._bumped_at, self._latest_clone = -BUMP_INTERVAL_S, 0
        self._notified_at: dict[str, float] = {}
        self._notifying: set[asyncio.Task[None]] = set()

    def _keep_site_current(self, config: Config, lease: ReadLease) -> None:
        self.answers_clients = asyncio.Event()
        """Set when this instance has joined, or has tried for as long as clients wait."""
        self.introductions = Introductions(self.members, self._config.own_url, self._say_hello)
        self.direct_push = DirectPush(self.peers, self.members, self.acknowledgements, self.gossip)
        self.site_lease = SiteLease(
            lease, self._clock, self.members, self.peers, self.anti_entropy, self.acknowledgements, self.gossip,
            self.heartbeat, self.answers_clients, bool(config.redis or config.peer), self.introductions.meet,
        )  # fmt: skip

    def _keep_content(self, config: Config, store: BlobStore, budget: DiskBudget) -> None:
        """Wire placement and storage: replicas, eviction, garbage collection, scrubbing."""
        catalog, clock, keeps = self._catalog, self._clock, not config.front_end
        self.policy = policy = config.rules
        self.rules_without_effect = policy.without_effect()
        self.replicator = Replicator(
            policy, keeps, catalog.queries, self.members, self.locator, self.transfers, config.copy_mib_s
        )
        self.write_concern = WriteConcern(
            policy, keeps, catalog.queries, self.members, self.peers, self.anti_entropy, self.bodies, self.transfers,
            self.replicator, config.acknowledge_s,
        )  # fmt: skip
        self.garbage_collector = GarbageCollector(
            catalog, store, self.members, self.gossip, self.peers, self.anti_entropy,
            config.gc_grace_s, config.gc_every_s,
        )  # fmt: skip
        self.evictor = Evictor(
            budget, catalog, store, self.members, self.peers, self.replicator, self.garbage_collector, clock
        )
        self.is_decommissioned = False
        self.on_decommissioned: Callable[[], None] = lambda: None  # called when this instance has left for good
        self.blob_reader = BlobReader(catalog, store, self.transfers, clock, config.check_after_s)
        self.decommission = Decommission(catalog, self.blob_reader, self.members, self.peers, self.anti_entropy)
        self.scrubber = Scrubber(config, catalog, store, self.blob_reader, self.bodies, clock)

    def start(self) -> None:
        """Begin the tasks."""
        asyncio.get_running_loop().call_later(self._clients_wait_s, self._answer_clients)
        tasks = (
            self.gossip.run, self.site_lease.run, self.direct_push.run, self.anti_entropy.run, self.bodies.run,
            self.replicator.run, self.garbage_collector.run, self.evictor.run, self.scrubber.run, self.watch.run,
            self.reachability.run, self._beat, self._introduce, self._join,
        )  # fmt: skip
        for work in tasks:
            self._tasks.append(asyncio.create_task(run_supervised(work)))

    async def close(self) -> None:
        for task in [*self._notifying, *([self._bumping] if self._bumping else [])]:
            task.cancel()
        if self._greeting is not None:
            self._greeting.cancel()
        await end(self._tasks)
        self.liveness.close()
        self.direct_push.close()
        self.introductions.close()
        self.anti_entropy.close()
        self.replicator.close()
        self.locator.close()
        self.transfers.close()
        self.blob_reader.close()
        self.bodies.close()

    # For handlers

    async def await_acknowledgements(self, change: Change) -> None:
        """Wait until a committed change may be answered: it is safe elsewhere where no frame carries it, and the own
        site has it, or is late."""
        await self.bodies.deposit(change)
        await self.acknowledgements.wait(change.commit)

    async def read_repair(self, repository: Repository) -> None:
        """Before a miss is answered: ask who may know more of a repository. What is missing may be here after that,
        by an answer or by a frame that came meanwhile. Raises NeedsUpgrade where that is not understood."""
        document, candidates = document_name(repository), self.anti_entropy.read_repair_candidates()
        await self.anti_entropy.read_repair.before_miss(document, candidates)
        require_understood(self._catalog.database, document)

    async def sync_before_delete(self, repository: Repository) -> None:
        """Before a delete: fetch what reachable members know more, so that it deletes that too."""
        await self.anti_entropy.pull_document(document_name(repository), self.members.reachable())

    @property
    def ready(self) -> bool:
        """Return whether this instance shows what its site shows."""
        if self.peers.acceptance.is_wrong or self.reachability.is_in_doubt:
            return False
        return self._joined and not self.decommission.under_way and self.site_lease.is_in_step and not self._behind()

    def heartbeat(self) -> Heartbeat:
        config = self._config
        return Heartbeat(
            site=config.site,
            advertise=self._config.own_url,
            advertise_site=config.advertise_site,
            version=__version__,
            start=self.gossip.start,
            changes=self.gossip.published_seq,
            commit=self._catalog.replica.commit_number(),
            root=self._catalog.replica.root(),
            applied={m.instance: m.applied_of_incarnation for m in self.members.of_own_site()},
            joining=not self._joined or self.anti_entropy.is_bootstrapping,
            front_end=config.front_end or self.decommission.under_way,
            name=config.instance_name,
            policy=self.policy.digest,
            now_ms=self._clock.now_ms(),
            disk=(self.space.free_bytes, self.space.total_bytes),
            capabilities=list(self._abilities.capabilities),
        )

    def make_handshake(self, to: Member | None = None) -> Handshake:
        addresses = [self.members.url(member) for member in self.members.live()]
        known_start, sequence = to.beat.start if to is not None else 0, self.gossip.next_heartbeat()
        return Handshake(self._catalog.instance_id, sequence, self.heartbeat(), addresses, known_start)

    def on_handshake(self, handshake: Handshake) -> None:
        """Take in a handshake that another instance has sent or answered."""
        if handshake.instance == self._catalog.instance_id and handshake.heartbeat.start != self.gossip.start:
            self.on_clone_detected(handshake.heartbeat.start)
        self.on_clone_detected(handshake.known_start)  # a directory that was restored under an older clock, too
        self.members.receive_heartbeat(handshake.instance, handshake.heartbeat, handshake.sequence, on_bus=False)
        self.introductions.hear_of(handshake.members)
        for url in handshake.members:
            if url and url not in self._addresses and len(self._addresses) < MAX_ADDRESSES:
                self._addresses.append(url)

    def on_clone_detected(self, start: int) -> None:
        """Begin a later incarnation than a clone, another process that runs as this instance. The other members believe
        the later incarnation, and would not ask the earlier one for its changes. Each lasts long enough to be heard."""
        self._latest_clone = max(self._latest_clone, start)
        if start > self.gossip.start and (self._bumping is None or self._bumping.done()):
            self._bumping = asyncio.create_task(self._bump_incarnation())

    def _on_stale_incarnation(self, member: Member, beat: Heartbeat) -> None:
        """Notify an instance that uses an earlier incarnation than one heard before: a clone of it ran for a while."""
        self._notify_stale(member.instance, beat, member)

    def _on_removed_member_returned(self, instance: str, beat: Heartbeat) -> None:
        """Say hello to a removed instance that has returned: it may know no member that can tell it of its removal."""
        if instance != self._catalog.instance_id:
            self._notify_stale(instance, beat, None)

    def _notify_stale(self, instance: str, beat: Heartbeat, member: Member | None) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._notified_at.get(instance, -BUMP_INTERVAL_S) + BUMP_INTERVAL_S:
            self._notified_at[instance] = now
            telling = asyncio.create_task(self._say_hello(self.members.url_of(beat), member))
            self._notifying.add(telling)
            telling.add_done_callback(self._notifying.discard)

    async def _bump_incarnation(self) -> None:
        loop = asyncio.get_running_loop()
        while self.gossip.start <= self._latest_clone:
            await asyncio.sleep(max(self._bumped_at + BUMP_INTERVAL_S - loop.time(), 0.0))
            self._bumped_at = loop.time()
            try:
                self.gossip.begin_incarnation(await self._catalog.begin_incarnation(self._latest_clone))
            except StorageFailed as error:
                log.error(LogEvent.INCARNATION_WRITE_FAILED, "no new start could be counted: %(error)s", error=error)

    def advanced(self, document: str, vector: Vector) -> None:
        """Release the frames that waited for a document, which a diff has brought to `vector`."""
        self.gossip.advanced(document, vector)
        self.bodies.wake()

    # Tasks

    async def _beat(self) -> None:
        while True:
            await self._note_removed()
            self.gossip.beat(self.heartbeat())
            await self._save_members()
            await asyncio.sleep(HEARTBEAT_S)

    async def _note_removed(self) -> None:
        """Drop members that were removed. An instance that finds itself removed goes on under a new id."""
        forgotten = removed_members(self._catalog.database)
        gone = forgotten - self.members.removed
        if gone:
            self.membership_log.removed(gone, self._catalog)
            self.members.remove(gone)
            await self._catalog.database.write(partial(drop_members, instances=gone))
            self._records.drop(gone)
        if self._catalog.instance_id in forgotten and not self.decommission.under_way:
            before = self._catalog.instance_id
            await self._catalog.rename()
            self.members.own_instance = self._catalog.instance_id
            self.gossip.begin_incarnation(self._catalog.incarnation)
            message = "instance %(removed)s was forgotten; it goes on as %(instance)s with all it has"
            log.warning(LogEvent.REMOVED_INSTANCE_RENAMED, message, removed=before, instance=self.members.own_instance)

    async def remove_member(self, instance: str) -> None:
        """Remove another instance for good."""
        documents, now_ms = self._catalog.documents, self._clock.now_ms()
        await self._catalog.database.write(lambda tx: remove_member(tx, documents, instance, now_ms))
        await self._note_removed()

    def begin_decommission(self) -> None:
        """Hand over what only this instance holds, and be gone for good."""
        if not self.decommission.under_way:
            self.decommission.under_way = True
            self.replicator.stop()
            self.write_concern.stop()
            self.evictor.stop()
            self._tasks.append(asyncio.create_task(run_supervised(self._decommission)))

    async def _decommission(self) -> None:
        self.gossip.beat(self.heartbeat())
        await self.decommission.hand_over()
        await self.remove_member(self._catalog.instance_id)
        await self.decommission.tell()
        self.is_decommissioned = True
        await asyncio.sleep(DECOMMISSION_LINGER_S)  # so that members hear it, and a command that waits sees it
        log.warning(LogEvent.INSTANCE_DECOMMISSIONED, "this instance has left the cluster for good")
        self.on_decommissioned()

    async def _save_members(self) -> None:
        rows = self._records.due(self.members.live(), self._clock.now_ms())
        if rows:
            await self._catalog.database.write(partial(save_members, members=rows))
            self._records.saved(rows)

    async def _introduce(self) -> None:
        """Say hello to addresses whose instances are not heard on the bus."""
        while True:
            heard = {self.members.url(member) for member in self.members.on_bus()}
            known = {self.members.url(member) for member in self.members.all()}
            self.peers.acceptance.retain([*self._addresses, *known])
            heard.difference_update(self.peers.acceptance.refusing())  # asked until they accept the key
            urls = [url for url in dict.fromkeys([*self._addresses, *sorted(known)]) if url and url not in heard]
            suspects = [member for member in self.members.reachable() if member.suspect]
            asking = [*(self._say_hello(url) for url in urls), *(self._probe(m) for m in suspects)]
            await asyncio.gather(asyncio.sleep(HEARTBEAT_S), *asking)  # so that no hello waits for another

    async def _say_hello(self, url: str, to: Member | None = None) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                answer = await self.peers.ask_url(url, "/hello", self.make_handshake(to), Handshake)
        except (PeerUnreachable, TimeoutError) as error:
            if url not in self._silent:
                self._silent.add(url)
                why = str(error).removeprefix(f"{url} ") or "no answer in time"
                log.warning(LogEvent.HANDSHAKE_FAILED, "no hello from %(address)s: %(error)s", address=url, error=why)
            return
        if url in self._silent:
            self._silent.discard(url)
            log.info(LogEvent.HANDSHAKE_COMPLETED, "%(address)s says hello", address=url)
        self.on_handshake(answer)
        if answer.instance == self._catalog.instance_id and url in self._addresses:
            self._addresses.remove(url)  # a list of peers may be the same everywhere, this instance included

    async def _probe(self, member: Member) -> None:
        """Ask a member that gave no answer, or has to prove that it is alive, before a request depends on it."""
        with contextlib.suppress(PeerUnreachable):
            self.on_handshake(await self._exchange_handshake(member))

    async def _exchange_handshake(self, member: Member) -> Handshake:
        handshake = self.make_handshake(member)
        return await self.peers.ask(member, "/hello", handshake, Handshake, timeout_s=HEARTBEAT_S)

    async def _join(self) -> None:
        """Catch up with the own site before being ready, unless this instance is alone there."""
        loop, begun = asyncio.get_running_loop(), self._began
        standalone = not self._config.redis and not self._addresses and not self.members.all()
        known = any(member.beat.site == self._config.site for member in self.members.all())
        alone_s = HEARTBEAT_S + JOIN_ALONE_S if known else JOIN_ALONE_S  # by then each live member has been heard
        while not standalone and loop.time() < begun + JOIN_TIMEOUT_S:
            near = self.members.of_own_site()
            reachable = [member for member in near if member.reachable]
            alone = not near and not self.members.has_unproven_at_own_site()
            if not alone and not reachable and loop.time() > begun + JOIN_UNREACHED_S:
                break
            if reachable and not self._catalog.replica.commit_number():
                await self.anti_entropy.catch_up_soon(min(reachable, key=lambda member: member.beat.joining))
            caught_up = reachable and all(
                await asyncio.gather(*(self.anti_entropy.catch_up_soon(m) for m in reachable))
            )
            # The member that is heard first may have just started, too, and have nothing yet.
            caught_up = caught_up and not self.introductions.pending
            if caught_up and all(m in reachable for m in self.members.of_own_site() if m.reachable):
                break
            if alone and loop.time() > begun + alone_s:
                break
            await asyncio.sleep(JOIN_POLL_S)
        self._joined = True
        if not standalone:
            self.membership_log.joined()
        self._answer_clients()

    def _answer_clients(self) -> None:
        self.answers_clients.set()
        self.site_lease.request_renewal()

    # Incoming changes

    def _heard(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        beat = member.beat
        start, applied = beat.applied.get(self._catalog.instance_id, (0, 0))
        if beat.site == self._config.site and start == self.gossip.start:
            self.acknowledgements.caught_up(member, applied)
        if member.is_new:
            if self._greeting is None:
                wait_s = min(GREETING_DELAY_S * len(self.members.live()), HEARTBEAT_S)
                self._greeting = loop.call_later(wait_s, self._greet)
            loop.call_later(FRAME_DELIVERY_S, self._meet, member)
            self.site_lease.request_renewal()
        if member.ahead:
            self._ahead_since.setdefault(member.instance, loop.time())
            loop.call_later(FRAME_DELIVERY_S, self._look_again, member, beat)
        else:
            self._ahead_since.pop(member.instance, None)

    def _greet(self) -> None:
        """Send new members a heartbeat now, rather than after up to two seconds."""
        self._greeting = None
        self.gossip.beat(self.heartbeat())

    def _meet(self, member: Member) -> None:
        """One that has begun anew, or is back after a silence, does not wait for the next round."""
        if member.reachable and self.anti_entropy.differs(member):
            self.anti_entropy.catch_up_soon(member)

    def _look_again(self, member: Member, beat: Heartbeat) -> None:
        """A heartbeat told of changes that were not here. Their frames should be by now; else they were lost."""
        if not member.ahead:
            self._ahead_since.pop(member.instance, None)
        elif member.applied.contiguous_seq(beat.start) < beat.changes and member.reachable:
            self.anti_entropy.catch_up_soon(member)

    def _behind(self) -> bool:
        now = asyncio.get_running_loop().time()
        for member in self.members.of_own_site():
            since = self._ahead_since.get(member.instance)
            if since is not None and member.ahead and now - since > STALE_AFTER_S:
                return True
        return False

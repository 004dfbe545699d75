"""This instance's part in the cluster, put together, with the tasks that keep it going."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from crdt.change import Change
from crdt.fact import Fact
from crdt.vector import Vector
from registry import __version__
from registry.capabilities import OWN, Abilities
from registry.catalog.catalog import Catalog
from registry.catalog.documents import Applied
from registry.catalog.members import all_members, all_reached, drop_members, save_members
from registry.catalog.membership import forget_member, forgotten_members
from registry.catalog.queries import document_name
from registry.catalog.understanding import require_understood
from registry.cluster.membership.clock_offsets import ClockOffsets
from registry.cluster.membership.decommission import Leave
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
from registry.cluster.replication.acknowledgements import Confirmations
from registry.cluster.replication.anti_entropy import Sync
from registry.cluster.replication.direct_push import SitePush
from registry.cluster.replication.gossip import Gossip
from registry.cluster.replication.lag import Delays
from registry.cluster.replication.manifest_bodies import Bodies
from registry.cluster.replication.read_lease import ReadLease
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.client import Peers
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import Heartbeat, Hello
from registry.cluster.transfer.blob_reader import Contents
from registry.cluster.transfer.locator import Locator
from registry.cluster.transfer.scrubber import Scrubber
from registry.cluster.transfer.transfer import Transfers
from registry.config import Config
from registry.errors import StorageFailed
from registry.event_loop.ending import end
from registry.event_loop.supervised import run_supervised
from registry.oci.names import Digest, Repository
from registry.ports import Bus, Clock, PeerTransport, PeerUnreachable
from registry.storage.space import DiskSpace
from registry.storage.store import BlobStore
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

LOOK_AGAIN_S = 0.3
BEHIND_S = 2.0
GREETING_S = 0.01  # for each member, so that many who start together are not answered by all each time
JOIN_LOOK_S = 0.1
JOIN_ALONE_S = 1.0
JOIN_UNREACHED_S = 10.0
JOIN_S = 30.0
CLIENTS_WAIT_S = 10.0
CLIENTS_WAIT_IN_PLACE_S = 0.5  # so that another takes a dead process's place within a second
MAX_ADDRESSES = 1000
LEAVING_S = 2.0
GIB = 1024**3
OUTDO_S = 5.0


class Cluster:
    """Gossip, catching up and fetching, running. Without bus, peers and members it has nothing to do."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        store: BlobStore,
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
        self.members.remember(all_members(catalog.database), all_reached(catalog.database))
        self.members.forget(forgotten_members(catalog.database) - {catalog.instance_id})
        self.members.on_heard.append(self._heard)
        self.membership_log = MembershipLog(self.members)
        self.confirmations = Confirmations(self.members)
        self.gossip = Gossip(
            catalog, bus, keys, self.members, self.confirmations, catalog.start_number, clock, abilities
        )
        self.peers = Peers(transport, self.members, clock, keys, abilities)
        self.sync = Sync(catalog, self.peers, self.members)
        self.delays = Delays(self.members, clock)
        self.locator = Locator(self.peers, self.members)
        self.transfers = Transfers(
            store, catalog.database, self.peers, self.members, self.locator, clock, config.hold_s
        )
        self.bodies = Bodies(catalog, self.peers, self.members, self.locator, self.sync)
        self._keep_site_current(config, lease)
        self._keep_content(config, store)
        self.space = DiskSpace(store.disk)
        self.offsets = ClockOffsets(clock)
        self.watch = Watch(
            self.members, self.policy, not config.front_end, clock, self.offsets, self.space,
            lambda member: self.peers.ask(member, "/hello", self.hello(member), Hello, timeout_s=HEARTBEAT_S),
        )  # fmt: skip
        self.gossip.on_twin = self.twin_seen
        self.members.on_outdated = self._outdated
        self.members.on_forgotten = self._back
        self.liveness = LivenessProbe(config.site, self._probe)
        self.members.on_unproven = self.liveness.request
        self.gossip.on_incomplete = self.sync.document_is_due
        self.sync.on_advanced = self.advanced
        catalog.on_taken_in = self._taken_in
        self._addresses = list(config.peer)
        self.reachability = Reachability(self.members, self.peers, self.heartbeat, self._addresses)
        self._tasks: list[asyncio.Task[None]] = []
        self._ahead_since: dict[str, float] = {}
        self._records = MemberRecords()
        self._silent: set[str] = set()
        """Addresses of which it was said that nobody answers there."""
        self._joined = False
        self._began = asyncio.get_running_loop().time()
        self._greeting: asyncio.TimerHandle | None = None
        self._outdoing: asyncio.Task[None] | None = None
        self._outdone_at = -OUTDO_S
        self._latest_twin = 0
        self._told_at: dict[str, float] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def _keep_site_current(self, config: Config, lease: ReadLease) -> None:
        self.answers_clients = asyncio.Event()
        """Set when this instance has joined, or has tried for as long as clients wait."""
        self.introductions = Introductions(self.members, self._config.own_url, self._say_hello)
        self.site_push = SitePush(self.peers, self.members, self.confirmations, self.gossip)
        self.site_lease = SiteLease(
            lease, self._clock, self.members, self.peers, self.sync, self.confirmations, self.gossip,
            self.heartbeat, self.answers_clients, bool(config.redis or config.peer), self.introductions.meet,
        )  # fmt: skip

    def _keep_content(self, config: Config, store: BlobStore) -> None:
        """Who holds content, how long, and whether it is right."""
        catalog, clock, keeps = self._catalog, self._clock, not config.front_end
        self.policy = policy = config.rules
        self.rules_without_effect = policy.without_effect()
        self.replicator = Replicator(
            policy, keeps, catalog.queries, self.members, self.locator, self.transfers, config.copy_mib_s
        )
        self.write_concern = WriteConcern(
            policy, keeps, catalog.queries, self.members, self.peers, self.sync, self.bodies, self.transfers,
            self.replicator, config.acknowledge_s,
        )  # fmt: skip
        self.garbage_collector = GarbageCollector(
            catalog, store, self.members, self.gossip, self.peers, self.sync, config.gc_grace_s, config.gc_every_s
        )
        budget = int(config.disk_budget_gib * GIB)
        self.evictor = Evictor(
            budget, catalog, store, self.members, self.peers, self.replicator, self.garbage_collector, clock
        )
        self.transfers.has_room, self.transfers.on_kept = self.evictor.has_room, self.evictor.on_blob_added
        self.has_left = False
        self.on_left: Callable[[], None] = lambda: None  # called when this instance has left for good
        catalog.documents.on_links = self._linked
        self.contents = Contents(catalog, store, self.transfers, clock, config.check_after_s)
        self.leave = Leave(catalog, self.contents, self.members, self.peers, self.sync)
        self.scrubber = Scrubber(config, catalog, store, self.contents, self.bodies, clock)

    def start(self) -> None:
        """Begin the tasks."""
        asyncio.get_running_loop().call_later(self._clients_wait_s, self._answer_clients)
        for work in (
            self.gossip.run,
            self.site_lease.run,
            self.site_push.run,
            self.sync.run,
            self.bodies.run,
            self.replicator.run,
            self.garbage_collector.run,
            self.evictor.run,
            self.scrubber.run,
            self.watch.run,
            self.reachability.run,
            self._beat,
            self._introduce,
            self._join,
        ):
            self._tasks.append(asyncio.create_task(run_supervised(work)))

    async def close(self) -> None:
        for task in [*self._telling, *([self._outdoing] if self._outdoing else [])]:
            task.cancel()
        if self._greeting is not None:
            self._greeting.cancel()
        await end(self._tasks)
        self.liveness.close()
        self.site_push.close()
        self.introductions.close()
        self.sync.close()
        self.replicator.close()
        self.locator.close()
        self.transfers.close()
        self.contents.close()
        self.bodies.close()

    # What handlers use

    async def settle(self, change: Change) -> None:
        """Wait until a committed change may be answered: it is safe elsewhere where no frame carries it, and the own
        site has it, or is late."""
        await self.bodies.deposit(change)
        await self.confirmations.wait(change.commit)

    async def learn_for_miss(self, repository: Repository) -> None:
        """Before a miss is answered: ask who may know more of a repository. What is missing may be here after that,
        by an answer or by a frame that came meanwhile. Raises NeedsUpgrade where that is not understood."""
        await self.sync.read_repair.before_miss(document_name(repository), self.sync.hinted())
        require_understood(self._catalog.database, document_name(repository))

    async def learn_for_delete(self, repository: Repository) -> None:
        """Before a delete: fetch what reachable members know more, so that it deletes that too."""
        await self.sync.refresh(document_name(repository), self.members.reachable())

    @property
    def ready(self) -> bool:
        """Whether this instance shows what its site shows."""
        if self.peers.acceptance.is_wrong or self.reachability.is_in_doubt:
            return False
        return self._joined and not self.leave.under_way and self.site_lease.is_in_step and not self._behind()

    def heartbeat(self) -> Heartbeat:
        config = self._config
        return Heartbeat(
            site=config.site,
            advertise=self._config.own_url,
            advertise_site=config.advertise_site,
            version=__version__,
            start=self.gossip.start,
            changes=self.gossip.changes,
            commit=self._catalog.replica.commit_number(),
            root=self._catalog.replica.root(),
            applied={m.instance: (m.beat.start, m.applied.upto(m.beat.start)) for m in self.members.of_own_site()},
            joining=not self._joined or self.sync.filling,
            front_end=config.front_end or self.leave.under_way,
            name=config.instance_name,
            policy=self.policy.digest,
            now_ms=self._clock.now_ms(),
            disk=(self.space.free_bytes, self.space.total_bytes),
            capabilities=list(self._abilities.capabilities),
        )

    def hello(self, to: Member | None = None) -> Hello:
        addresses = [self.members.url(member) for member in self.members.live()]
        known_start = to.beat.start if to is not None else 0
        return Hello(self._catalog.instance_id, self.gossip.next_heartbeat(), self.heartbeat(), addresses, known_start)

    def greeted(self, hello: Hello) -> None:
        """Another instance has introduced itself by a request, or answered ours."""
        if hello.instance == self._catalog.instance_id and hello.heartbeat.start != self.gossip.start:
            self.twin_seen(hello.heartbeat.start)
        self.twin_seen(hello.known_start)  # a directory that was put back, on a machine whose clock is behind, too
        self.members.hear(hello.instance, hello.heartbeat, hello.sequence, on_bus=False)
        self.introductions.hear_of(hello.members)
        for url in hello.members:
            if url and url not in self._addresses and len(self._addresses) < MAX_ADDRESSES:
                self._addresses.append(url)

    def twin_seen(self, start: int) -> None:
        """Another process runs as this instance. The others believe the later start, and take us for the earlier one;
        what we have they would not ask for. So begin anew, later than it; not more often than that it can be heard."""
        self._latest_twin = max(self._latest_twin, start)
        if start > self.gossip.start and (self._outdoing is None or self._outdoing.done()):
            self._outdoing = asyncio.create_task(self._outdo())

    def _outdated(self, member: Member, beat: Heartbeat) -> None:
        """An instance speaks under an earlier start than we know of it: a copy of it ran for a while. Let it know."""
        self._let_know(member.instance, beat, member)

    def _back(self, instance: str, beat: Heartbeat) -> None:
        """An instance is back that was forgotten, and may know nobody: let it know who can tell it."""
        if instance != self._catalog.instance_id:
            self._let_know(instance, beat, None)

    def _let_know(self, instance: str, beat: Heartbeat, member: Member | None) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._told_at.get(instance, -OUTDO_S) + OUTDO_S:
            self._told_at[instance] = now
            telling = asyncio.create_task(self._say_hello(self.members.url_of(beat), member))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _outdo(self) -> None:
        loop = asyncio.get_running_loop()
        while self.gossip.start <= self._latest_twin:
            await asyncio.sleep(max(self._outdone_at + OUTDO_S - loop.time(), 0.0))
            self._outdone_at = loop.time()
            try:
                self.gossip.begin_again(await self._catalog.begin_again(self._latest_twin))
            except StorageFailed as error:
                log.error(LogEvent.INCARNATION_WRITE_FAILED, "no new start could be counted: %(error)s", error=error)

    def advanced(self, document: str, vector: Vector) -> None:
        """A document has reached `vector` by a diff: what was held for that can go on."""
        self.gossip.advanced(document, vector)
        self.bodies.look()

    # Tasks

    async def _beat(self) -> None:
        while True:
            await self._note_forgotten()
            self.gossip.beat(self.heartbeat())
            await self._save_members()
            await asyncio.sleep(HEARTBEAT_S)

    async def _note_forgotten(self) -> None:
        """Know members no more that are gone for good. Whoever is told so of itself goes on as another."""
        forgotten = forgotten_members(self._catalog.database)
        gone = forgotten - self.members.forgotten
        if gone:
            self.membership_log.removed(gone, self._catalog)
            self.members.forget(gone)
            await self._catalog.database.write(partial(drop_members, instances=gone))
            self._records.drop(gone)
        if self._catalog.instance_id in forgotten and not self.leave.under_way:
            before = self._catalog.instance_id
            await self._catalog.rename()
            self.members.own_instance = self._catalog.instance_id
            self.gossip.begin_again(self._catalog.start_number)
            message = "instance %(removed)s was forgotten; it goes on as %(instance)s with all it has"
            log.warning(LogEvent.REMOVED_INSTANCE_RENAMED, message, removed=before, instance=self.members.own_instance)

    async def forget(self, instance: str) -> None:
        """Say that another instance is gone for good."""
        documents, now_ms = self._catalog.documents, self._clock.now_ms()
        await self._catalog.database.write(lambda tx: forget_member(tx, documents, instance, now_ms))
        await self._note_forgotten()

    def begin_to_leave(self) -> None:
        """Hand over what only this instance holds, and be gone for good."""
        if not self.leave.under_way:
            self.leave.under_way = True
            self.replicator.stop()
            self.write_concern.stop()
            self.evictor.stop()
            self._tasks.append(asyncio.create_task(run_supervised(self._leave)))

    async def _leave(self) -> None:
        self.gossip.beat(self.heartbeat())
        await self.leave.hand_over()
        await self.forget(self._catalog.instance_id)
        await self.leave.tell()
        self.has_left = True
        await asyncio.sleep(LEAVING_S)  # so that the others hear it, and whoever waits for us sees it
        log.warning(LogEvent.INSTANCE_DECOMMISSIONED, "this instance has left the cluster for good")
        self.on_left()

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
            await asyncio.gather(asyncio.sleep(HEARTBEAT_S), *asking)  # who does not answer keeps nobody waiting

    async def _say_hello(self, url: str, to: Member | None = None) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                answer = await self.peers.ask_url(url, "/hello", self.hello(to), Hello)
        except (PeerUnreachable, TimeoutError) as error:
            if url not in self._silent:
                self._silent.add(url)
                why = str(error).removeprefix(f"{url} ") or "no answer in time"
                log.warning(LogEvent.HANDSHAKE_FAILED, "no hello from %(address)s: %(error)s", address=url, error=why)
            return
        if url in self._silent:
            self._silent.discard(url)
            log.info(LogEvent.HANDSHAKE_COMPLETED, "%(address)s says hello", address=url)
        self.greeted(answer)
        if answer.instance == self._catalog.instance_id and url in self._addresses:
            self._addresses.remove(url)  # a list of peers may be the same everywhere, this instance included

    async def _probe(self, member: Member) -> None:
        """Ask a member that gave no answer, or has to prove that it is alive, before anybody depends on it."""
        with contextlib.suppress(PeerUnreachable):
            answer = await self.peers.ask(member, "/hello", self.hello(member), Hello, timeout_s=HEARTBEAT_S)
            self.greeted(answer)

    async def _join(self) -> None:
        """Catch up with the own site before being ready, unless nobody is there."""
        loop, begun = asyncio.get_running_loop(), self._began
        standalone = not self._config.redis and not self._addresses and not self.members.all()
        known = any(member.beat.site == self._config.site for member in self.members.all())
        alone_s = HEARTBEAT_S + JOIN_ALONE_S if known else JOIN_ALONE_S  # by then who lives has been heard
        while not standalone and loop.time() < begun + JOIN_S:
            near = self.members.of_own_site()
            reachable = [member for member in near if member.reachable]
            alone = not near and not self.members.claimed_of_own_site()
            if not alone and not reachable and loop.time() > begun + JOIN_UNREACHED_S:
                break
            if reachable and not self._catalog.replica.commit_number():
                await self.sync.catch_up_soon(min(reachable, key=lambda member: member.beat.joining))
            caught_up = reachable and all(await asyncio.gather(*(self.sync.catch_up_soon(m) for m in reachable)))
            # Who is heard first may have just started, too, and have nothing yet.
            caught_up = caught_up and not self.introductions.pending
            if caught_up and all(m in reachable for m in self.members.of_own_site() if m.reachable):
                break
            if alone and loop.time() > begun + alone_s:
                break
            await asyncio.sleep(JOIN_LOOK_S)
        self._joined = True
        self.membership_log.joined()
        self._answer_clients()

    def _answer_clients(self) -> None:
        self.answers_clients.set()
        self.site_lease.wanted()

    # What comes in

    def _linked(self, document: str, links: list[Fact]) -> None:
        self.garbage_collector.linked(Digest(fact.key) for fact in links)
        self.replicator.linked(document, links)

    def _taken_in(self, applied: Applied, sender: str | None) -> None:
        """Measure how old a change is; with a sender it came by a frame, which may have had no room for a body."""
        self.bodies.look()
        time, writer = applied.latest
        if time and not self.sync.filling:
            self.delays.note(sender or self._catalog.queries.instance_of(writer), time, by_frame=sender is not None)

    def _heard(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        beat = member.beat
        start, applied = beat.applied.get(self._catalog.instance_id, (0, 0))
        if beat.site == self._config.site and start == self.gossip.start:
            self.confirmations.caught_up(member, applied)
        if member.is_new:
            if self._greeting is None:
                wait_s = min(GREETING_S * len(self.members.live()), HEARTBEAT_S)
                self._greeting = loop.call_later(wait_s, self._greet)
            loop.call_later(LOOK_AGAIN_S, self._meet, member)
        if member.ahead:
            self._ahead_since.setdefault(member.instance, loop.time())
            loop.call_later(LOOK_AGAIN_S, self._look_again, member, beat)
        else:
            self._ahead_since.pop(member.instance, None)
        if member.is_new:
            self.site_lease.wanted()

    def _greet(self) -> None:
        """Let newcomers know who is here, rather than after up to two seconds."""
        self._greeting = None
        self.gossip.beat(self.heartbeat())

    def _meet(self, member: Member) -> None:
        """One that has begun anew, or is back after a silence, does not wait for the next round."""
        if member.reachable and self.sync.differs(member):
            self.sync.catch_up_soon(member)

    def _look_again(self, member: Member, beat: Heartbeat) -> None:
        """A heartbeat told of changes that were not here. Their frames should be by now; else they were lost."""
        if not member.ahead:
            self._ahead_since.pop(member.instance, None)
        elif member.applied.upto(beat.start) < beat.changes and member.reachable:
            self.sync.catch_up_soon(member)

    def _behind(self) -> bool:
        now = asyncio.get_running_loop().time()
        for member in self.members.of_own_site():
            since = self._ahead_since.get(member.instance)
            if since is not None and member.ahead and now - since > BEHIND_S:
                return True
        return False

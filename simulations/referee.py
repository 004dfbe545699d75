"""The referee of a run: watches what instances commit and clients are told, and has it judged.

What holds depends on the weather. It is calm when nothing at all has disturbed the world for a while; requests get
through when nothing but the bus has been disturbed for as long.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crdt.delta import decode_delta
from registry.catalog.membership import DOCUMENT as MEMBERS
from registry.catalog.queries import KIND
from registry.cluster.replication.acknowledgements import PATIENCE_S
from registry.instance import Instance
from simulations.checkers import Violation, answers, pushes, restarts, stamps, visibility
from simulations.checkers.acknowledged import Acknowledged
from simulations.checkers.commits import Commits
from simulations.checkers.deletes import DELETES, Deletes
from simulations.checkers.holders import Holders
from simulations.checkers.identities import Identities
from simulations.checkers.misses import HEARD_S, TOLD_BY_HTTP_S, Misses
from simulations.checkers.read_your_writes import SETTLE_S, ReadYourWrites
from simulations.checkers.readiness import Readiness
from simulations.checkers.stamps import Stamps
from simulations.checkers.vectors import Vectors
from simulations.checkers.winners import Winners
from simulations.cluster import SimulatedCluster
from simulations.evictions import BUDGET_GIB, REFUSED
from simulations.faults import BODY_BROKEN, BUS_CUT, BUS_KINDS, FORGED_TAG, PARTS_NO_SITE
from simulations.history import Commit, CommittedOperation, DocumentState, Fact, History, Identity, Operation
from simulations.lost_content import LostContent
from simulations.node import Node
from simulations.plan import Plan
from simulations.process import ProcessDied
from simulations.workload.client import GRACE_S, Answer
from simulations.workload.long_upload import may_be_lost

CALM_S = 8.0
AT_ONCE_S = 0.02
"""From site to site; farther ones may take longer than a miss or a delete waits."""
CONFIRMED_S = 0.015
"""A neighbour's confirmation is here by then, also where the answer goes by way of another one."""
START_AGAIN_S = 0.2
WRITES = ("push", "push by digest", "upload", "mount", *DELETES)


DAY_S = 86_400.0


def settings_of(plan: Plan) -> dict[str, Any]:
    """What operators have set, by the conditions of a plan."""
    settings: dict[str, Any] = {"gc_grace_s": GRACE_S, "gc_every_s": 0.0, "acknowledge_s": 6.0}
    if "flipped-bit" not in plan.faults:
        settings |= {"check_after_s": DAY_S}  # else content is checked at every read, which readers leave to the owner
    if "two-copies" in plan.conditions:
        settings |= {"copies": "2", "acknowledge": "2"}
    elif "everywhere" in plan.conditions:
        settings |= {"copies": "everywhere"}
    if "evict" in plan.conditions:
        settings |= {"disk_budget_gib": BUDGET_GIB}
    return settings


class Referee:
    """The referee of one world, and what faults need of a stage."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.conditions = plan.conditions
        self.cluster = SimulatedCluster(plan.seed, list(plan.sites))
        self.cluster.packet_simulator.between_sites_s = plan.between_sites_s
        self.cluster.settings = settings_of(plan)
        hops = random.Random(f"{plan.seed} executor")
        self.cluster.loop.executor_delay_s = lambda: hops.random() * plan.executor_s
        self.violations: list[str] = []
        self.failed = asyncio.Event()
        self.counted: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.on_answer: list[Callable[[Node, Operation], None]] = []
        self.history = History()
        self.commits = Commits(self.history)
        self.commits.grace_s = GRACE_S
        self.commits.asked_by = self._asked_by
        self.vectors = Vectors()
        self.acknowledged = Acknowledged(self.history, self.commits)
        self.deletes = Deletes(self.history, self.commits)
        self.misses = Misses(self.history, self.commits)
        self.readiness = Readiness(self.cluster, self.history, self.commits)
        self.stamps = Stamps()
        self.winners = Winners()
        self.read_your_writes = ReadYourWrites(self._is_parted)
        self.lost = LostContent(self.cluster)
        self.identities = Identities()
        copies = 2 if "two-copies" in plan.conditions else 1
        self.holders = Holders(self.cluster, self.history, self.commits, self.lost, copies)
        self.reached: Counter[str] = Counter()
        """Paths that were come by, see `coverage_marks`."""
        self.delays_s: list[float] = []
        self._written: list[CommittedOperation] = []
        self._asking: dict[str, Operation] = {}
        """What each client has asked last."""
        self._disturbed_s = {"": 0.0}
        """When the world was disturbed last, by the kind of fault."""
        self._striking: Counter[str] = Counter()
        self._starting: set[Node] = set()
        self._on_their_way: dict[tuple[str, int, int], tuple[float, dict[str, float]]] = {}
        self._arrived_s: dict[tuple[str, int, int], dict[str, float]] = {}
        """When each instance was first seen to have what one has said."""
        if "no-bus" in plan.conditions:
            self.cluster.redis.absent = True
            self._striking[BUS_CUT] += 1
            self.cluster.peers = [f"http://{node.name}" for node in self.cluster.nodes]
        self.cluster.on_born.append(self._watch_writes)
        self.cluster.on_frame.append(self._observe)
        self.cluster.network.on_answer = self._answer_leaves
        self.cluster.network.on_changed = self.violate
        self.cluster.network.on_flip = (
            self.lost.digests.add
        )  # whoever seems to send wrong bytes is not asked for a while

    # Watching

    def judge(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """Make a check. A promise that is broken is noted, and ends the run."""
        try:
            return check(*arguments)
        except Violation as violation:
            self.violate(str(violation))

    def violate(self, what: str) -> None:
        self.violations.append(f"at {self.cluster.loop.now:.3f} s: {what}")
        self.failed.set()

    def _watch_writes(self, node: Node, instance: Instance) -> None:
        database = instance.catalog.database
        write = database.write

        async def watched(operation: Any) -> Any:
            result = await write(operation)
            self._observe(node)
            return result

        database.write = watched  # type: ignore[method-assign]
        store = instance.catalog.replica.store_snapshot

        def looked_at_before(tx: Any, compaction: Any, data: bytes) -> None:
            self._observe(node)  # the log is about to be forgotten
            store(tx, compaction, data)

        instance.catalog.replica.store_snapshot = looked_at_before  # type: ignore[method-assign]

    def _observe(self, node: Node) -> None:
        """Look at what an instance has committed, and have it judged."""
        for commit in self._look(node):
            if not self.commits.is_explained(commit):
                for other in self.cluster.nodes:
                    self._observe(other)
            self.judge(self.commits.check, commit)
            self.judge(self.vectors.check, commit)
            self.misses.note(commit, self.cluster.loop.now)
            self.stamps.note(commit)
            self.winners.note(commit, self.cluster.loop.now)
            if any(fact.key == ("t", FORGED_TAG) for fact in commit.after.facts.values()):
                self.violate(f"{node.name} has taken in what an outsider has sent")
            self._note_arrivals(node, commit.document, commit.after.vector)

    def _look(self, node: Node) -> list[Commit]:
        """What an instance has committed since it was looked at; its own operations are noted."""
        if node.instance is None or not node.up or not node.started:
            return []
        now, bounds = self.cluster.loop.now, self.stamps.bounds(node)
        commits = self.history.observe(node, node.instance)
        for commit in commits:
            start = node.instance.cluster.incarnation.number
            for number, delta in commit.operations:
                is_found = node.instance.catalog.documents.writer not in decode_delta(delta).spans
                since_s = node.begun_s if is_found else None
                said = self.judge(self.commits.check_operation, node.name, commit.document, delta, now, since_s) or {}
                waited_for = self._waited_for(node, commit.document)
                self._written.append(CommittedOperation(now, node, start, number, commit, said, bounds, waited_for))
                self.readiness.note(self._written[-1])
                self.judge(self.identities.note, node, node.instance, said)
                for identity in said:
                    self._arrived_s[commit.document, *identity] = {node.name: now}
                    self._on_their_way[commit.document, *identity] = now, self._arrived_s[commit.document, *identity]
        return commits

    def _waited_for(self, node: Node, document: str) -> frozenset[Identity]:
        """What an instance has written last in a document of which it does not wait any more to be confirmed."""
        until_s = self.cluster.loop.now - PATIENCE_S
        own = (o for o in reversed(self._written) if o.node is node and o.commit.document == document)
        last = next((one for one in own if one.said and one.at_s <= until_s), None)
        return frozenset(last.said if last is not None else ())

    def _given_up(self, written: CommittedOperation) -> set[str]:
        """Who of an instance's site lacks what that had waited for, or has got it just now: that is on its way to be
        confirmed, and until then nobody waits for who is late."""
        document, found = written.commit.document, set()
        for other in self.cluster.nodes:
            vector = self.history.of(other.name).get(document, DocumentState()).vector
            for writer, clock in written.waited_for if other.site == written.node.site else ():
                arrived_s = self._arrived_s[document, writer, clock].get(other.name, 0.0)
                if vector.get(writer, 0) <= clock or arrived_s > self.cluster.loop.now - CONFIRMED_S:
                    found.add(other.name)
        return found

    def _note_arrivals(self, node: Node, document: str, vector: dict[int, int]) -> None:
        for (name, writer, clock), (begun, places) in list(self._on_their_way.items()):
            if name == document and vector.get(writer, 0) > clock:
                places.setdefault(node.name, self.cluster.loop.now)
                if len(places) >= len(self.cluster.nodes):
                    self.delays_s.append(self.cluster.loop.now - begun)
                    del self._on_their_way[name, writer, clock]

    def _answer_leaves(self, source: str, target: str, status: int) -> None:
        operation = self._asking.get(source)
        if operation is not None and operation.kind != "collect":  # by operators, who are answered at any time
            for node in self.cluster.nodes:
                if node.name == target:
                    self.judge(self.readiness.answered, node)
        if operation is None or status not in (201, 202) or operation.kind not in WRITES:
            return
        nodes = self.cluster.nodes
        if self.calm:
            operation.status = status
            # another of the site may own an upload
            own = [one for one in self._written_for(operation) if operation.kind == "upload" or one.node.name == target]
            given_up = {name for one in own for name in self._given_up(one)}
            if operation.kind in DELETES:
                behind = self._behind(operation, target) | given_up
                self.judge(self.deletes.check_site, operation, nodes, behind)
            else:
                said = {identity: fact for one in own for identity, fact in one.said.items()}
                judged = [node for node in nodes if node.name not in given_up - {operation.node}]
                self.judge(visibility.check_site, operation, judged, self.history, said)
        for node in nodes:
            if node.name == target:
                for call in list(self.on_answer):
                    call(node, operation)
                if not node.up:
                    raise ProcessDied(target)

    # What clients tell

    @property
    def calm(self) -> bool:
        """Whether nothing has disturbed the world for a while."""
        return self._quiet_but(set())

    @property
    def requests_get_through(self) -> bool:
        """Whether nothing but the bus has been disturbed for a while."""
        return self._quiet_but(BUS_KINDS)

    def _quiet_but(self, kinds: set[str]) -> bool:
        now = self.cluster.loop.now
        recent = any(now - at_s <= CALM_S for kind, at_s in self._disturbed_s.items() if kind not in kinds)
        return not recent and not self._striking.keys() - kinds

    def _is_parted(self, site: str, begin: float, end: float) -> bool:
        """Whether something may have parted instances of a site since a time, or just before. What has parted them
        once it was over counts, too, so that nothing is asked too much."""
        if self._striking.keys() - PARTS_NO_SITE:
            return True
        parted = (at_s for kind, at_s in self._disturbed_s.items() if kind and kind not in PARTS_NO_SITE)
        return begin <= max(parted, default=-SETTLE_S) + SETTLE_S

    def begin(
        self, client: str, kind: str, node: Node, repository: str, reference: str = "", digest: str = ""
    ) -> Operation:
        now = self.cluster.loop.now
        operation = self.history.begin(kind, node.name, repository, now, reference, digest)
        self._asking[client] = operation
        self._observe(node)
        if kind == "pull manifest":
            self.misses.begin(operation, self._tellers(node))
        elif kind in DELETES:
            self.deletes.begin(operation, [node.name, *self._asked_at_once(node)])
        is_ready = node.instance is not None and node.started and node.instance.ready
        self.read_your_writes.begin(operation, node.site, is_ready)
        self.cluster.trace("ask", kind, node.name, repository, reference)
        return operation

    def end(self, operation: Operation, answer: Answer | None) -> None:
        operation.ended_s = self.cluster.loop.now
        self.cluster.trace("answer", operation.kind, operation.status)
        self.operations[f"{operation.kind} {operation.status or 'none'}"] += 1
        if (operation.status or 0) >= 400 and answer is not None:
            operation.said = answer.body.decode(errors="replace")
        (node,) = (node for node in [*self.cluster.nodes, *self.cluster.gone] if node.name == operation.node)
        self._observe(node)
        if answer is not None:
            shown = answer.headers.get("docker-content-digest", "") if operation.status == 200 else ""
            self.judge(self.read_your_writes.end, operation, shown)
        if operation.status is None:
            if self.calm:
                self.violate(f"{operation} in calm weather")
            return
        # A transfer that breaks off in its middle goes on: that is no ground for giving up, or for cutting off.
        steady = self._quiet_but(BUS_KINDS | {BODY_BROKEN}) if operation.kind == "pull blob" else self.calm
        has_room = "evict" not in self.conditions or REFUSED not in operation.said
        self.judge(answers.check_status, operation, steady and has_room, self.lost)
        may_be_gone = operation.kind.startswith("slow") and may_be_lost(self.plan)
        if has_room and self.requests_get_through and not may_be_gone:
            self.judge(answers.check_upload, operation, self.lost)
        if answer is None and steady and not self.lost.concerns(operation):
            self.violate(f"{operation} was cut off")
        if operation.kind == "pull manifest":
            self.judge(self.misses.check, operation, self._tellers(node))
        if operation.kind in DELETES:
            self.judge(self.deletes.check, operation)
        if operation.status == 200 and answer is not None:
            self._check_content(operation, answer)
        if operation.kind in WRITES and operation.acknowledged:
            self._check_write(operation)
        if operation.kind in ("push", "push by digest") and operation.status == 404 and self.requests_get_through:
            self.judge(pushes.check_refusal, operation, self.history.operations, self.lost)

    def _check_content(self, operation: Operation, answer: Answer) -> None:
        if operation.kind == "pull blob":
            self.judge(answers.check_body, operation.digest, answer.body)
        if operation.kind == "pull manifest":
            digest = answer.headers.get("docker-content-digest", "")
            self.judge(answers.check_body, digest, answer.body)
            self.judge(self.winners.check, operation, digest)

    def _check_write(self, operation: Operation) -> None:
        self.judge(self.acknowledged.check_answer, operation, self._facts_for(operation))
        if operation.kind in ("push", "push by digest"):
            self.judge(pushes.check_push, operation, self._written_for(operation))
            self.judge(stamps.check_stamp, operation, self._written_for(operation))

    def _written_for(self, operation: Operation) -> list[CommittedOperation]:
        """What instances of a request's site have written in its repository since it was sent."""
        site, document = self.cluster.packet_simulator.site_of[operation.node], KIND + operation.repository
        return [
            one
            for one in self._written
            if one.at_s >= operation.begun_s and one.node.site == site and one.commit.document == document
        ]

    def _behind(self, operation: Operation, target: str) -> set[str]:
        """Who lacks more than what an instance has written for a request: what it had before."""
        before = [one.commit.before.vector for one in self._written_for(operation) if one.node.name == target][:1]
        document, found = KIND + operation.repository, set()
        for node in self.cluster.nodes:
            vector = self.history.of(node.name).get(document, DocumentState()).vector
            if any(vector.get(writer, 0) < clock for had in before for writer, clock in had.items()):
                found.add(node.name)
        return found

    def _facts_for(self, operation: Operation) -> dict[Identity, Fact]:
        """What those operations have said."""
        found = (one.said for one in self._written_for(operation))
        return {identity: fact for said in found for identity, fact in said.items()}

    # Who can be asked

    def _asked_at_once(self, node: Node) -> list[str]:
        """The other instances that one can ask and will hear from at once, while requests get through."""
        if node.instance is None or not node.started or not self.requests_get_through:
            return []
        members = node.instance.cluster.members
        found = []
        for other in self.living():
            near = other.site == node.site or self.plan.between_sites_s <= AT_ONCE_S
            if other is not node and near and other.instance is not None and other.started:
                member = members.get(other.instance.catalog.instance_id)
                # One that is presumed dead could be asked all the same: that is no reason not to.
                if member is not None and (member.prompt or not member.live):
                    found.append(other.name)
        return found

    def _asked_by(self, name: str) -> list[str]:
        """The running instances that one knows."""
        found = []
        for node in self.living():
            if node.name == name and node.instance is not None and node.started:
                known = {member.instance for member in node.instance.cluster.members.all()}
                others = (other for other in self.living() if other.instance is not None and other.started)
                found = [o.name for o in others if o.instance and o.instance.catalog.instance_id in known]
        return found

    def _tellers(self, node: Node) -> Mapping[str, float]:
        """The instances that can tell one of a tag, and how long they must have had it for that."""
        bounds = {node.name: 0.0}
        site_of = self.cluster.packet_simulator.site_of
        for other in self._asked_at_once(node):
            heard_s = HEARD_S if self.calm else TOLD_BY_HTTP_S
            bounds[other] = 0.0 if site_of[other] == node.site else heard_s
        return bounds

    # What faults need

    def fired(self, kind: str) -> None:
        self.counted[kind] += 1
        self.disturb(kind)

    def _strike_ends(self, kind: str) -> None:
        self._striking[kind] -= 1
        self._striking += Counter()
        self.disturb(kind)

    def disturb(self, kind: str = "") -> None:
        self._disturbed_s[kind] = self.cluster.loop.now

    def living(self) -> list[Node]:
        return [node for node in self.cluster.nodes if node.up and node.process is not None and not node.process.paused]

    def wrong_bytes(self, digest: str) -> None:
        """An instance has received content that is not what it was to be."""
        if digest not in self.lost.digests:
            self.violate(f"{digest} has arrived damaged, and nothing has damaged it")

    def lose_disk(self, node: Node, but_manifests: bool = False) -> None:
        """What only a disk has is lost, but for what two instances were to hold before a push was answered."""
        promised: set[str] = set()
        if "two-copies" in self.plan.conditions and not self.lost.digests:
            promised = self.acknowledged.pushed()
        self.holders.disk_lost(node)
        self.lost.disk_of(node, promised, but_manifests)

    def put_back(self, node: Node) -> None:
        self.lose_disk(node)
        self.acknowledged.excuse(node.name)
        others = [other for other in self.cluster.nodes if other is not node]
        self.identities.excuse(self._known_to_be_gone(others), self._known_to_be_gone([node]))
        self.history.forget(node.name)
        self.winners.forget(node.name, self.cluster.loop.now)

    def copied(self, node: Node, twin: Node) -> None:
        twin.abilities, twin.fields_of = node.abilities, node.fields_of
        self.history.copied(node, twin)

    def _known_to_be_gone(self, nodes: Iterable[Node]) -> set[str]:
        """What instances know of others."""
        return {
            fact.key[1]
            for node in nodes
            for fact in self.history.of(node.name).get(MEMBERS, DocumentState()).facts.values()
            if node.instance is None or fact.key[1] != node.instance.catalog.instance_id
        }

    def evicted(self, name: str, digest: str, begun_s: float) -> None:
        """An instance has removed a content to make room, which it began to think about then."""
        self.reached["content evicted"] += 1
        self.judge(self.holders.check_evicted, name, digest, begun_s)

    def left(self, node: Node) -> None:
        assert node.instance is not None, "it has just said so"
        self._observe(node)
        self.judge(self.holders.check_left, node)
        self.identities.left(node.instance.catalog.instance_id, f"({node.name}) has left")
        self._remove(node, False)

    def lose(self, node: Node) -> None:
        self._observe(node)
        self.put_back(node)
        self._remove(node, True)

    def _remove(self, node: Node, power_cut: bool) -> None:
        self.cluster.nodes.remove(node)
        self.cluster.gone.append(node)
        node.die(power_cut)

    def forgotten(self, node: Node, instance: str) -> None:
        self.identities.gone[instance] = f"({node.name}) was forgotten"
        self.lost.relied_on_by(node, self.history)

    async def restart(self, node: Node) -> None:
        """Start a dead instance: first where it meets nobody, to see what it has."""
        if node.up or node in self._starting or node not in self.cluster.nodes:
            return
        self._starting.add(node)
        node.on_disk_call = lambda call, name: None
        while not node.up:
            if node.starts:
                await node.start(connected=False)
                if node.up and node.instance is not None:
                    self.judge(restarts.check_alone, node, node.instance, self.history)
                    node.die(False)
            await node.start()
            if not node.up:  # struck again at once, or refused by its disk
                await asyncio.sleep(START_AGAIN_S)
        self._starting.discard(node)
        self._observe(node)
        self.readiness.started(node)
        self.stamps.started(node)
        self.disturb()

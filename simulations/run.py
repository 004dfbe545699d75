"""One run: a cluster under faults, then healed, then calm; everything is watched and judged.

Phases: instances start; clients and faults go on together; all is healed, and the instances must agree within two
rounds of catching up; in calm weather clients go on, and now nothing may be refused or late; at last every tag and blob
is pulled at every instance.
"""

import asyncio
import contextlib
import gc
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from registry.catalog.queries import KIND
from registry.instance import Instance
from registry.names import Digest, Repository
from simulations.checkers import Violation, answers, bounds, convergence, restarts, visibility
from simulations.checkers.acknowledged import Acknowledged
from simulations.checkers.commits import Commits
from simulations.checkers.misses import Misses
from simulations.checkers.vectors import Vectors
from simulations.faults import FAULTS, FORGED_TAG
from simulations.guard import guarded
from simulations.history import History, Identity, Key, Operation
from simulations.life import Died, nobodys
from simulations.workload import Client
from simulations.world import Node, World

CONVERGENCE_S = 10.0
MOMENTS = 10
CALM_S = 8.0
SITES = (("eu", "us"), ("eu", "eu", "us"), ("eu", "us", "ap"), ("eu", "eu", "us", "us"), ("eu", "eu", "eu"))
WRITES = ("push", "push by digest", "upload", "mount", "delete tag", "delete manifest", "delete blob")


@dataclass(frozen=True)
class Plan:
    """What is drawn for a run, before anything happens."""

    seed: int
    sites: tuple[str, ...] = ("eu", "eu", "us")
    faults: tuple[str, ...] = ()
    fault_s: float = 12.0
    clients: int = 2
    operations: int = 7
    """Of each client, while there are faults."""
    calm_operations: int = 4
    between_sites_s: float = 0.0
    executor_s: float = 0.002
    """The longest that a job in the executor takes."""


def drawn_plan(seed: int, **chosen: Any) -> Plan:
    """The plan of a seed, but for what is chosen."""
    drawn = random.Random(f"{seed} plan")
    plan = Plan(
        seed,
        sites=drawn.choice(SITES),
        faults=tuple(drawn.sample(sorted(FAULTS), drawn.randint(2, 5))),
        between_sites_s=drawn.choice((0.0, 0.0, 0.02, 0.08)),
    )
    return replace(plan, **chosen)


@dataclass
class Outcome:
    """How a run went."""

    plan: Plan
    violations: list[str]
    fired: Counter[str]
    trace: str
    virtual_s: float
    operations: Counter[str]
    """Requests by kind and status."""
    convergence_s: float
    delays_s: list[float]
    """From the commit of a push to its being everywhere, for each that came to be."""


class Run:
    """The referee of one world, and the stage of its faults."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = World(plan.seed, list(plan.sites))
        self.world.weather.between_sites_s = plan.between_sites_s
        hops = random.Random(f"{plan.seed} executor")
        self.world.loop.executor_delay_s = lambda: hops.random() * plan.executor_s
        self.violations: list[str] = []
        self.failed = asyncio.Event()
        self.counted: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()
        self.on_answer: list[Callable[[Node], None]] = []
        self.history = History()
        self.commits = Commits(self.history)
        self.vectors = Vectors()
        self.acknowledged = Acknowledged(self.history, self.commits)
        self.misses = Misses(self.history, self.commits)
        self.lossy = False
        """Whether a disk was put back or damaged: some content may be nowhere."""
        self._written: list[tuple[float, Node, str, Identity, Key]] = []
        self._asking: dict[str, Operation] = {}
        """What each client has asked last."""
        self._tags_before: dict[int, dict[str, set[str]]] = {}
        self._disturbed_s = 0.0
        self._striking = 0
        self._starting: set[Node] = set()
        self._on_their_way: dict[tuple[str, int, int], tuple[float, set[str]]] = {}
        self.convergence_s = 0.0
        self.delays_s: list[float] = []
        self.world.on_born.append(self._watch_writes)
        self.world.on_frame.append(self._observe)
        self.world.network.on_answer = self._answer_leaves

    # Watching

    def judge(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """Make a check. A promise that is broken is noted, and ends the run."""
        try:
            return check(*arguments)
        except Violation as violation:
            self.violate(str(violation))

    def violate(self, what: str) -> None:
        self.violations.append(f"at {self.world.loop.now:.3f} s: {what}")
        self.failed.set()

    def _watch_writes(self, node: Node, instance: Instance) -> None:
        database = instance.catalog.database
        write = database.write

        async def watched(operation: Any) -> Any:
            result = await write(operation)
            self._observe(node)
            return result

        database.write = watched  # type: ignore[method-assign]

    def _observe(self, node: Node) -> None:
        """Look at what an instance has committed."""
        if node.instance is None or not node.up or not node.started:
            return
        now = self.world.loop.now
        for commit in self.history.observe(node, node.instance):
            for delta in commit.operations:
                said = self.judge(self.commits.check_operation, node.name, commit.document, delta, now) or {}
                for identity, key in said.items():
                    self._written.append((now, node, commit.document, identity, key))
                    self._on_their_way[commit.document, *identity] = now, {node.name}
            self.judge(self.commits.check, commit)
            self.judge(self.vectors.check, commit)
            self.misses.note(commit, now)
            if any(fact.key == ("t", FORGED_TAG) for fact in commit.after.facts.values()):
                self.violate(f"{node.name} has taken in what an outsider has sent")
            self._note_arrivals(node, commit.document, commit.after.vector)

    def _note_arrivals(self, node: Node, document: str, vector: dict[int, int]) -> None:
        for (name, writer, clock), (begun, places) in list(self._on_their_way.items()):
            if name == document and vector.get(writer, 0) > clock:
                places.add(node.name)
                if len(places) >= len(self.world.nodes):
                    self.delays_s.append(self.world.loop.now - begun)
                    del self._on_their_way[name, writer, clock]

    def _answer_leaves(self, source: str, target: str, status: int) -> None:
        operation = self._asking.get(source)
        if operation is not None and status in (201, 202):
            if operation.kind in WRITES and self.calm:
                operation.status = status
                own = {
                    i: key
                    for i, (key, node) in self._written_for(operation).items()
                    if node == operation.node or operation.kind == "upload"  # another of the site may own the upload
                }
                self.judge(visibility.check_site, operation, self.world.nodes, self.history, own)
            for node in self.world.nodes:
                if node.name == target:
                    for call in list(self.on_answer):
                        call(node)
                    if not node.up:
                        raise Died(target)

    # What clients tell

    @property
    def calm(self) -> bool:
        return self._striking == 0 and self.world.loop.now - self._disturbed_s > CALM_S

    def begin(
        self, client: str, kind: str, node: Node, repository: str, reference: str = "", digest: str = ""
    ) -> Operation:
        now = self.world.loop.now
        operation = self.history.begin(kind, node.name, repository, now, reference, digest)
        self._asking[client] = operation
        if kind == "pull manifest":
            self._tags_before[operation.number] = self.misses.tags_of(repository, now, node.name)
        self.world.trace("ask", kind, node.name, repository, reference)
        return operation

    def end(self, operation: Operation, body: bytes | None) -> None:
        operation.ended_s = self.world.loop.now
        self.world.trace("answer", operation.kind, operation.status)
        self.operations[f"{operation.kind} {operation.status or 'none'}"] += 1
        if (operation.status or 0) >= 400 and body:
            operation.said = body.decode(errors="replace")[:200]
        status = operation.status
        if status is None:
            if self.calm:
                self.violate(f"{operation} in calm weather")
            return
        self.judge(answers.check_status, operation, self.calm, self.lossy)
        if operation.kind == "pull blob" and status == 200 and body is not None:
            self.judge(answers.check_body, operation.digest, body)
        if operation.kind == "pull manifest":
            before = self._tags_before.pop(operation.number)
            up = {node.name for node in self.living()}
            self.judge(self.misses.check, operation, before, up, self.calm)
        if operation.kind in WRITES and operation.acknowledged:
            self._check_write(operation)

    def _check_write(self, operation: Operation) -> None:
        written = {identity: key for identity, (key, _) in self._written_for(operation).items()}
        self.judge(self.acknowledged.check_answer, operation, written)

    def _written_for(self, operation: Operation) -> dict[Identity, tuple[Key, str]]:
        """What instances of a request's site have written in its repository since it was sent, and which of them."""
        site, document = self.world.weather.site_of[operation.node], KIND + operation.repository
        return {
            identity: (key, node.name)
            for at, node, name, identity, key in self._written
            if at >= operation.begun_s and node.site == site and name == document
        }

    # What faults need

    def fired(self, kind: str) -> None:
        self.counted[kind] += 1
        self.disturb()

    def disturb(self) -> None:
        self._disturbed_s = self.world.loop.now

    def living(self) -> list[Node]:
        return [node for node in self.world.nodes if node.up and node.life is not None and not node.life.paused]

    def put_back(self, node: Node) -> None:
        self.lossy = True
        self.acknowledged.excuse(node.name)
        self.history.forget(node.name)

    async def restart(self, node: Node) -> None:
        """Start a dead instance: first where it meets nobody, to see what it has."""
        if node.up or node in self._starting or node not in self.world.nodes:
            return
        self._starting.add(node)
        node.on_disk_call = lambda call, name: None
        while not node.up:
            if node.lives:
                await node.start(connected=False)
                if node.up and node.instance is not None:
                    self.judge(restarts.check_alone, node, node.instance, self.history)
                    node.die(False)
            await node.start()  # it may be struck again at once
        self._starting.discard(node)
        self._observe(node)
        self.disturb()

    # The phases

    async def play(self) -> None:
        """All phases, or as far as the first promise that is broken."""
        playing = asyncio.ensure_future(self._phases())
        failing = asyncio.ensure_future(self.failed.wait())
        await asyncio.wait([playing, failing], return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        if playing.done():
            playing.result()
        else:
            playing.cancel()

    async def _phases(self) -> None:
        await asyncio.gather(*(self.restart(node) for node in self.world.nodes))
        await asyncio.sleep(2.5)
        await asyncio.gather(self._load(self.plan.operations, "busy"), *map(self._strike, self.plan.faults))
        await self._heal()
        await self._converge()
        await asyncio.sleep(CALM_S + 0.1)
        await self._load(self.plan.calm_operations, "calm")
        await asyncio.sleep(1.0)
        await self._check_end()

    async def _load(self, operations: int, phase: str) -> None:
        clients = [
            Client(
                f"client{number}", self.world.network, self._places, self, f"{self.plan.seed} {phase} client {number}"
            )
            for number in range(self.plan.clients)
        ]
        pause_s = self.plan.fault_s / max(operations, 1) / 2 if phase == "busy" else 0.2
        await asyncio.gather(*(client.run(operations, pause_s) for client in clients))

    def _places(self) -> list[Node]:
        return self.world.nodes

    async def _strike(self, name: str) -> None:
        fault, _ = FAULTS[name]
        drawn = random.Random(f"{self.plan.seed} {name}")
        await asyncio.sleep(drawn.random() * self.plan.fault_s * 0.7)
        self._striking += 1
        await fault(self, drawn)
        self._striking -= 1
        self.disturb()

    async def _heal(self) -> None:
        self.world.weather.clear()
        self.world.redis.stalled.clear()
        for node in self.world.nodes:
            node.resume()
            node.on_disk_call = lambda call, name: None
        await asyncio.gather(*(self.restart(node) for node in self.world.nodes if not node.up))

    async def _converge(self) -> None:
        begun = self.world.loop.now
        while True:
            instances = [node.instance for node in self.world.nodes if node.instance is not None]
            agreed = len({instance.catalog.replica.root() for instance in instances}) == 1
            if agreed and all(instance.ready for instance in instances):
                break
            if self.world.loop.now - begun > CONVERGENCE_S:
                self.violate(f"instances do not agree {CONVERGENCE_S} s after all faults have stopped")
                return
            await asyncio.sleep(0.25)
        self.convergence_s = self.world.loop.now - begun

    async def _check_end(self) -> None:
        nodes = self.world.nodes
        for node in nodes:
            self._observe(node)
        live = self.judge(convergence.check_agreement, nodes) or {}
        for document, identities in live.items():
            self.judge(self.acknowledged.check_end, document, identities)
        for node in nodes:
            if node.instance is not None:
                for _ in range(MOMENTS):
                    if bounds.waiting(node.instance):  # a round of catching up writes down how far it came
                        await asyncio.sleep(0.05)
                self.judge(bounds.check_queues, node.name, node.instance)
        self.judge(bounds.check_tasks, len(asyncio.all_tasks()))
        before, seconds = self.world.network.requests, 4.0
        await asyncio.sleep(seconds)
        self.judge(bounds.check_calm_requests, self.world.network.requests - before, len(nodes), seconds)
        await self._sweep()

    async def _sweep(self) -> None:
        """Pull every tag at every instance, and every blob that a tag stands on at one."""
        client = Client("client-last", self.world.network, self._places, self, f"{self.plan.seed} sweep")
        drawn = random.Random(f"{self.plan.seed} sweep")
        blobs: set[tuple[Repository, str]] = set()
        instance = self.world.nodes[0].instance
        assert instance is not None, "all run in the end"
        for repository in instance.catalog.queries.repositories("", 100):
            for tag in instance.catalog.queries.tags(repository, "", 100):
                row = instance.catalog.queries.manifest_by_tag(repository, tag)
                assert row is not None, "the tag was just listed"
                for node in self.world.nodes:
                    await self._pull(client, node, repository, tag, row.digest, blobs)
        for repository, digest in sorted(blobs):
            if instance.catalog.queries.blob(repository, Digest(digest)) is None:
                continue  # it was deleted, which is allowed
            answer = await client.pull_blob(drawn.choice(self.world.nodes), repository, digest)
            if (answer is None or answer.status != 200) and not self.lossy:
                self.violate(f"blob {digest} of {repository} cannot be pulled in the end")

    async def _pull(
        self, client: Client, node: Node, repository: Repository, tag: str, digest: Digest, blobs: set[Any]
    ) -> None:
        body = await client.pull_manifest(node, repository, tag)
        if body is None:
            if not self.lossy:
                self.violate(f"tag {tag} of {repository} cannot be pulled at {node.name} in the end")
            return
        self.judge(answers.check_body, digest, body)
        blobs |= {(repository, layer) for layer in client.layers(body)}

    def outcome(self) -> Outcome:
        return Outcome(
            self.plan,
            self.violations,
            self.counted,
            self.world.trace_hash(),
            self.world.loop.now,
            self.operations,
            self.convergence_s,
            self.delays_s,
        )


def run(plan: Plan, act: Callable[[Run], Awaitable[None]] = Run.play) -> Outcome:
    """Carry out a plan in a world of its own, or something else in the world of a plan."""
    gc.collect()
    gc.disable()  # when it runs is no function of the seed
    playing = Run(plan)
    loop = playing.world.loop
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda _, context: _unhandled(playing, context))
    try:
        with _logged(playing), guarded():
            loop.run_until_complete(act(playing))
        return playing.outcome()
    finally:
        loop.set_exception_handler(lambda _, context: None)
        playing.world.close()
        asyncio.set_event_loop(None)
        gc.enable()


def _unhandled(playing: Run, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None and not isinstance(error, Died):
        playing.violate(f"an exception nobody handled: {error!r}")


class _Exceptions(logging.Handler):
    """An exception that the registry did not expect is logged by it; here it ends the run."""

    def __init__(self, playing: Run) -> None:
        super().__init__(logging.ERROR)
        self._playing = playing

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            nobodys(lambda: self._playing.violate(f"{record.getMessage()}: {record.exc_info[1]!r}"))  # type: ignore[index]


@contextlib.contextmanager
def _logged(playing: Run) -> Iterator[None]:
    log, handler = logging.getLogger("concord"), _Exceptions(playing)
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate

"""One run: a cluster under faults, then healed, then calm; everything is watched and judged.

Phases: instances start; clients and faults go on together; all is healed, and the instances must agree within two
rounds of catching up; in calm weather clients go on, and now nothing may be refused or late; at last everything is
pulled and listed at every instance.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from registry.telemetry.events import LogEvent
from simulations import decommissions, evictions
from simulations.checkers import bounds, convergence
from simulations.checkers.readiness import LOOK_S
from simulations.coverage_marks import counted
from simulations.faults import BUS_CUT, FAULTS, LAG_FAULTS, MANGLING
from simulations.guard import guarded
from simulations.history import Operation
from simulations.node import Node
from simulations.plan import Outcome, Plan
from simulations.process import ProcessDied, outside_processes
from simulations.referee import CALM_S, Referee
from simulations.small_limits import small_limits
from simulations.workload.client import GRACE_S, Client
from simulations.workload.final_reads import FinalReads
from simulations.workload.images import ALL_IMAGES
from simulations.workload.long_upload import LongUpload, keep_on, loses_uploads, may_be_lost
from simulations.workload.mix import run_mix
from simulations.workload.pipeline import Pipeline

CONVERGENCE_S = 10.0
MOMENTS = 40
TRIES = 40


class Run(Referee):
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.convergence_s = 0.0

    async def play(self, phases: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """All phases, or others, as far as the first promise that is broken."""
        simulation = asyncio.ensure_future((phases or self._phases)())
        looking = asyncio.ensure_future(self._look_often())
        failing = asyncio.ensure_future(self.failed.wait())
        await asyncio.wait([simulation, failing], return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
        looking.cancel()
        if simulation.done():
            simulation.result()
        else:
            simulation.cancel()

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.judge(self.readiness.look)

    async def _phases(self) -> None:
        await asyncio.gather(*(self.restart(node) for node in self.cluster.nodes))
        await asyncio.sleep(2.5)
        slow, going_on = self._begin_slow_upload()
        busy = self._be_busy(), self._collect("busy", self.plan.fault_s), self._run_pipelines()
        await asyncio.gather(*busy, *map(self.strike, self.plan.faults))
        await self.heal()
        await self.converge()
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
        await asyncio.sleep(CALM_S + 0.1)
        await asyncio.gather(self.load(self.plan.calm_operations, "calm"), self._collect("calm", 3 * GRACE_S))
        await slow.finish(self.cluster.nodes[0])
        await asyncio.sleep(1.0)
        if "lose-one" in self.plan.conditions and len(self.cluster.nodes) > 1:
            await self._lose_one()
        await self._check_end()

    async def _be_busy(self) -> None:
        await self.load(self.plan.operations, "busy")
        if "forgotten" in self.plan.faults:
            await self.load(self.plan.operations, "busy meanwhile")  # something happens while it is away

    async def load(self, operations: int, phase: str) -> None:
        clients = [
            Client(
                f"client{number}", self.cluster.network, self._places, self, f"{self.plan.seed} {phase} client {number}"
            )
            for number in range(self.plan.clients)
        ]
        pause_s = self.plan.fault_s / max(operations, 1) / 2 if phase != "calm" else 0.2
        for client in clients if "collect" in self.plan.conditions else ():
            client.collects = True
        await asyncio.gather(*(run_mix(client, operations, pause_s) for client in clients))

    async def _run_pipelines(self) -> None:
        """Beside faults that make an instance lag its site."""
        if not LAG_FAULTS & set(self.plan.faults):
            return

        def make_client(name: str) -> Client:
            return Client(name, self.cluster.network, self._places, self, f"{self.plan.seed} {name}")

        pipelines = [Pipeline(make_client, f"pipeline {site}", site) for site in sorted(set(self.plan.sites))]
        until = self.cluster.loop.now + self.plan.fault_s
        await asyncio.gather(*(pipeline.run_until(until) for pipeline in pipelines))

    def _begin_slow_upload(self) -> "tuple[LongUpload, asyncio.Task[None]]":
        rng = random.Random(f"{self.plan.seed} slow upload")
        client = Client("client-slow", self.cluster.network, self._places, self, f"{self.plan.seed} slow client")
        upload = LongUpload(client, rng, self.violate, may_be_lost(self.plan))
        return upload, asyncio.ensure_future(keep_on(upload, rng, self._places))

    async def _collect(self, phase: str, seconds: float) -> None:
        """Have content that no manifest names collected, here and there, for so long."""
        name, until = f"collector {phase}", self.cluster.loop.now + seconds
        rng = random.Random(f"{self.plan.seed} {name}")
        client = Client(name, self.cluster.network, self._places, self, f"{self.plan.seed} {name}")
        while "collect" in self.plan.conditions and self.cluster.loop.now < until:
            await client.collect(rng.choice(self.cluster.nodes))

    def _places(self) -> list[Node]:
        return self.cluster.nodes

    async def strike(self, name: str) -> None:
        fault, kinds = FAULTS[name]
        rng = random.Random(f"{self.plan.seed} {name}")
        await asyncio.sleep(rng.random() * self.plan.fault_s * 0.7)
        kind = kinds[0]
        self._striking[kind] += 1
        await fault(self, rng)
        self._strike_ends(kind)

    async def heal(self) -> None:
        self.cluster.packet_simulator.clear()
        self.cluster.redis.stalled.clear()
        for node in self.cluster.nodes:
            node.resume()
            node.on_disk_call = lambda call, name: None
        await asyncio.gather(*(self.restart(node) for node in self.cluster.nodes if not node.up))

    async def converge(self) -> None:
        begun = self.cluster.loop.now
        while True:
            instances = [node.instance for node in self.cluster.nodes if node.instance is not None]
            agreed = len({instance.catalog.replica.root() for instance in instances}) == 1
            if agreed and all(instance.ready for instance in instances):
                break
            if self.cluster.loop.now - begun > CONVERGENCE_S:
                self.violate(f"instances do not agree {CONVERGENCE_S} s after all faults have stopped")
                return
            await asyncio.sleep(0.25)
        self.convergence_s = self.cluster.loop.now - begun
        if self.cluster.redis.absent:
            self.cluster.redis.absent = False
            self._strike_ends(BUS_CUT)

    async def _lose_one(self) -> None:
        """An instance is gone for good as its answer to a push leaves, in calm weather: nothing may be gone with it but
        content."""
        rng = random.Random(f"{self.plan.seed} lost")
        node, client = rng.choice(self.cluster.nodes), f"client-{self.plan.seed}"

        def strike(at: Node, operation: Operation) -> None:
            if at is node and operation is self._asking[client] and operation.kind == "push":
                self._observe(node)
                self.lose_disk(node, but_manifests=True)
                self._remove(node, True)

        self.on_answer.append(strike)
        pusher = Client(client, self.cluster.network, self._places, self, f"{client} pushes")
        for _ in range(TRIES):  # where disks have budgets, all may be refused
            if node.up and not self.failed.is_set():
                await pusher.push(node, "app", "last", rng.choice(ALL_IMAGES))
        self.on_answer.remove(strike)
        if not node.up:
            self.fired("gone for good")
        await asyncio.sleep(CALM_S)

    async def _check_end(self) -> None:
        nodes = self.cluster.nodes
        for node in nodes:
            self._observe(node)
        run_mix = self.judge(convergence.check_agreement, nodes) or {}
        self.judge(self.identities.check_end, nodes)
        self.judge(self.holders.check_end)
        for document, identities in run_mix.items():
            self.judge(self.acknowledged.check_end, document, identities)
        for node in nodes:
            if node.instance is not None:
                for _ in range(MOMENTS):
                    # A round of catching up writes down how far it came, and copies come in many small pieces.
                    if bounds.waiting(node.instance, self.lost.digests):
                        await asyncio.sleep(0.05)
                # Whoever was told of a change by one that is gone goes on asking for it a while.
                self.judge(bounds.check_queues, node.name, node.instance, self.lost.digests, bool(self.cluster.gone))
                self.judge(bounds.check_wanted, node.name, node.instance, self.lost.nowhere())
        self.judge(bounds.check_tasks, len(asyncio.all_tasks()), len(self.cluster.disks))
        refused = sum((node.refused() for node in [*nodes, *self.cluster.gone]), Counter[str]())
        if not MANGLING & set(self.plan.faults) and not loses_uploads(self.plan.faults):
            self.judge(bounds.check_refused, refused)
        before, seconds = self.cluster.network.requests, 4.0
        await asyncio.sleep(seconds)
        self.judge(bounds.check_calm_requests, self.cluster.network.requests - before, len(nodes), seconds)
        await FinalReads(self).carry_out()

    def outcome(self) -> Outcome:
        return Outcome(
            self.plan,
            self.violations,
            self.counted,
            self.cluster.trace_hash(),
            self.cluster.loop.now,
            self.operations,
            self.convergence_s,
            self.delays_s,
            self.reached,
        )


def run(plan: Plan, act: Callable[[Run], Awaitable[None]] = Run.play) -> Outcome:
    """Carry out a plan in a world of its own, or something else in the world of a plan."""
    logging.disable()  # coroutines of killed instances are ended here, and what they say of that means nothing
    gc.collect()
    logging.disable(logging.NOTSET)
    _set_aside()
    gc.disable()  # when it runs is no function of the seed
    simulation = Run(plan)
    loop = simulation.cluster.loop
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda _, context: _unhandled(simulation, context))
    try:
        with contextlib.ExitStack() as stack:
            for setting in (
                _logged(simulation),
                guarded(),
                small_limits("small" in plan.conditions),
                counted(simulation.reached),
            ):
                stack.enter_context(setting)
            stack.enter_context(decommissions.watched(simulation.holders.asked))
            if "evict" in plan.conditions:
                stack.enter_context(evictions.watched(simulation.evicted))
            try:
                loop.run_until_complete(act(simulation))
            except Exception as error:  # the other seeds go on
                simulation.violate(f"the simulation itself broke: {error!r}")
        return simulation.outcome()
    finally:
        loop.set_exception_handler(lambda _, context: None)
        simulation.cluster.close()
        asyncio.set_event_loop(None)
        gc.enable()


@functools.cache
def _set_aside() -> None:
    """Spare the collector what was there before the first run. Nothing later: what is left of a world then, waiting for
    its finalizer, would never go."""
    gc.freeze()


def _unhandled(simulation: Run, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None and not isinstance(error, ProcessDied):
        simulation.violate(f"an exception nobody handled: {error!r}")


class _Exceptions(logging.Handler):
    """An exception that the registry did not expect is logged by it; here it ends the run. So does content that arrives
    damaged, where no disk has damaged it."""

    def __init__(self, simulation: Run) -> None:
        super().__init__(logging.ERROR)
        self._playing = simulation

    def emit(self, record: logging.LogRecord) -> None:
        if vars(record).get("event") == str(LogEvent.WRONG_BYTES_RECEIVED):
            digest = str(vars(record)["fields"]["digest"])
            outside_processes(lambda: self._playing.wrong_bytes(digest))
        if record.exc_info is not None and record.exc_info[1] is not None:
            outside_processes(lambda: self._playing.violate(f"{record.getMessage()}: {record.exc_info[1]!r}"))  # type: ignore[index]


@contextlib.contextmanager
def _logged(simulation: Run) -> Iterator[None]:
    """Nobody else hears what is logged: a record that somebody keeps would keep its world."""
    log = logging.getLogger("concord")
    before = log.propagate, log.handlers
    log.propagate, log.handlers = False, [_Exceptions(simulation)]
    try:
        yield
    finally:
        log.propagate, log.handlers = before

"""A simulation: one run of a plan, put together from its parts. This is the API that scenarios and tests use.

| part | |
|---|---|
| `cluster` | the simulated instances (`nodes`), their `network`, `packet_simulator` and `redis` servers |
| `workload` | clients that push, pull and delete |
| `checkers` | the invariants, and the history they judge |
| `violations` | invariants that were broken; the first one ends the run |
| `disturbances` | which faults are active, and whether the run is calm |
| `lifecycle` | starts, restores, losses and removals of instances |
| `commits`, `requests` | the observers that call the checkers |
| `log_events` | what instances log, for what cannot be seen at their seams |
| `marks` | the rarely taken paths that were reached |

A scenario is a coroutine that gets a simulation:

    async def scenario(simulation: Simulation) -> None:
        await simulation.start()
        first, second = simulation.nodes
        await simulation.client().push(first, "app", "v1", ALL_IMAGES[0])
        first.die(power_cut=True)
        await simulation.heal()
        await simulation.converge()
        await simulation.check_invariants()

    outcome = run(draw_plan(0, sites=("eu", "us"), faults=(), conditions=()), scenario)
    assert outcome.violations == []

`heal` ends all faults and restarts dead instances, `converge` waits until all instances agree, and `check_invariants`
makes the checks that hold once a cluster is calm. The other checkers judge every commit and every answer by themselves.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from registry.telemetry.events import LogEvent
from simulations import final_checks
from simulations.checkers.suite import Checkers
from simulations.cluster import SimulatedCluster
from simulations.commit_observer import CommitObserver
from simulations.coverage_marks import CoverageMarks
from simulations.disturbances import Disturbances
from simulations.evictions import BUDGET_GIB
from simulations.faults import BUS_CUT, FAULTS
from simulations.lifecycle import Lifecycle
from simulations.log_events import LogEvents
from simulations.node import Node
from simulations.plan import Outcome, Plan
from simulations.reachability import Reachability
from simulations.request_observer import RequestObserver
from simulations.violations import Violations
from simulations.workload.client import GRACE_S, Client
from simulations.workload.workload import Workload

CONVERGENCE_S = 10.0
"""Two rounds of anti-entropy."""
INTRODUCTION_S = 2.5
"""After so long every instance knows the others."""
DAY_S = 86_400.0


def settings_of(plan: Plan) -> dict[str, Any]:
    """Return what operators have set, by the conditions of a plan."""
    settings: dict[str, Any] = {"gc_grace_s": GRACE_S, "gc_interval_s": 0.0, "acknowledge_timeout_s": 6.0}
    if "flipped-bit" not in plan.faults:
        settings |= {
            "verify_after_s": DAY_S
        }  # else content is checked at every read, which workers leave to the primary
    if "two-copies" in plan.conditions:
        settings |= {"copies": "2", "acknowledge": "2"}
    elif "everywhere" in plan.conditions:
        settings |= {"copies": "everywhere"}
    if "evict" in plan.conditions:
        settings |= {"disk_budget_gib": BUDGET_GIB}
    return settings


class Simulation:
    """One run of a plan. It has its parts, and does little by itself."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.convergence_s = 0.0
        """The duration of the last `converge`."""
        self.cluster = cluster = _make_cluster(plan)
        self.disturbances = Disturbances(lambda: cluster.loop.now)
        self.violations = Violations(lambda: cluster.loop.now)
        self.log_events = LogEvents(self.violations.report)
        self.marks = CoverageMarks(cluster, self.log_events)
        reachability = Reachability(cluster, self.disturbances)
        copies = 2 if "two-copies" in plan.conditions else 1
        self.checkers = Checkers(cluster, copies, GRACE_S, reachability.asked_by, self.disturbances.is_parted)
        self.commits = CommitObserver(cluster, self.checkers, self.violations)
        self.requests = RequestObserver(
            plan, cluster, self.checkers, self.commits, self.disturbances, reachability, self.violations
        )
        self.lifecycle = Lifecycle(
            plan, cluster, self.checkers, self.commits.observe, self.disturbances, self.violations
        )
        self.workload = Workload(plan, cluster, self.requests, self.violations.report)
        cluster.network.on_changed = self.violations.report
        # A holder that seems to send wrong bytes is not asked for a while.
        cluster.network.on_flip = self.checkers.lost.digests.add
        self._listen_for_content()
        if cluster.redis.absent:
            self.disturbances.begin(BUS_CUT)

    def _listen_for_content(self) -> None:
        """Tell the checkers what instances log of content."""
        check, holders, lost = self.violations.check, self.checkers.holders, self.checkers.lost

        def evicted(name: str, fields: Mapping[str, Any]) -> None:
            check(holders.check_evicted, name, fields["digest"], self.now_s - fields["decided_in_s"])

        def asked(name: str, fields: Mapping[str, Any]) -> None:
            holders.asked(name, fields["digest"], self.now_s)

        def corrupt(name: str, fields: Mapping[str, Any]) -> None:
            if fields["digest"] not in lost.digests:
                self.violations.report(f"{fields['digest']} has arrived corrupt, and nothing has corrupted it")

        self.log_events.listen(LogEvent.REPLICA_EVICTED, evicted)
        self.log_events.listen(LogEvent.DECOMMISSION_HOLDERS_REQUESTED, asked)
        self.log_events.listen(LogEvent.WRONG_BYTES_RECEIVED, corrupt)

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the cluster, but for those that are gone for good."""
        return self.cluster.nodes

    @property
    def now_s(self) -> float:
        return self.cluster.loop.now

    def client(self, name: str = "client") -> Client:
        """Return a client. Each name has a randomness of its own."""
        return self.workload.client(name)

    async def start(self) -> None:
        """Start all instances, and wait until they know each other."""
        await asyncio.gather(*(self.lifecycle.restart(node) for node in self.nodes))
        await asyncio.sleep(INTRODUCTION_S)

    async def strike(self, name: str) -> None:
        """Have a fault strike at a drawn moment of the faulty phase, and wait until it is over."""
        fault, kinds = FAULTS[name]
        rng = random.Random(f"{self.plan.seed} {name}")
        await asyncio.sleep(rng.random() * self.plan.fault_s * 0.7)
        self.disturbances.begin(kinds[0])
        await fault(self, rng)
        self.disturbances.end(kinds[0])

    async def heal(self) -> None:
        """End all faults: repair every link, resume paused processes, and restart dead instances."""
        self.cluster.packet_simulator.clear()
        self.cluster.redis.stalled.clear()
        for node in self.nodes:
            node.resume()
            node.on_disk_call = lambda call, name: None
        await asyncio.gather(*(self.lifecycle.restart(node) for node in self.nodes if not node.up))

    async def converge(self) -> None:
        """Wait until all instances agree and are ready. It is a violation if they are not within two rounds."""
        begun = self.now_s
        while True:
            instances = [node.instance for node in self.nodes if node.instance is not None]
            agreed = len({instance.catalog.replica.root() for instance in instances}) == 1
            if agreed and all(instance.ready for instance in instances):
                break
            if self.now_s - begun > CONVERGENCE_S:
                self.violations.report(f"instances do not agree {CONVERGENCE_S} s after all faults have stopped")
                return
            await asyncio.sleep(0.25)
        self.convergence_s = self.now_s - begun
        if self.cluster.redis.absent:
            self.cluster.redis.absent = False
            self.disturbances.end(BUS_CUT)

    async def check_invariants(self) -> None:
        """Check what holds once a cluster has converged and is calm, and read everything at every instance."""
        await final_checks.check_invariants(self)

    def outcome(self) -> Outcome:
        return Outcome(
            self.plan,
            self.violations.found,
            self.disturbances.fired_count,
            self.cluster.trace_hash(),
            self.now_s,
            self.requests.count,
            self.convergence_s,
            self.commits.delays_s,
            self.marks.count(),
        )


def _make_cluster(plan: Plan) -> SimulatedCluster:
    cluster = SimulatedCluster(plan.seed, list(plan.sites))
    cluster.packet_simulator.between_sites_s = plan.between_sites_s
    cluster.settings = settings_of(plan)
    hops = random.Random(f"{plan.seed} executor")
    cluster.loop.executor_delay_s = lambda: hops.random() * plan.executor_s
    if "no-bus" in plan.conditions:
        cluster.redis.absent = True
        cluster.peers = [f"http://{node.name}" for node in cluster.nodes]
    return cluster

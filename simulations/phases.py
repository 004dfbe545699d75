"""The phases of a run: faults and clients together, healing, convergence, calm, the final checks.

As in TigerBeetle's VOPR, a safety phase under faults is followed by a liveness phase: once all faults have ended, the
instances must agree within two rounds of anti-entropy, and no request may be refused or late any more.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from simulations.checkers.readiness import LOOK_S
from simulations.disturbances import CALM_S
from simulations.history import Operation
from simulations.node import Node
from simulations.simulation import CONVERGENCE_S, Simulation
from simulations.workload.client import GRACE_S, Client
from simulations.workload.images import ALL_IMAGES

Phases = Callable[[Simulation], Coroutine[Any, Any, None]]
TRIES = 40


async def play(simulation: Simulation) -> None:
    """Play all phases, as far as the first violation."""
    await until_violation(simulation, all_phases)


async def until_violation(simulation: Simulation, phases: Phases) -> None:
    """Play phases as far as the first violation, and check readiness again and again meanwhile."""
    playing = asyncio.ensure_future(phases(simulation))
    looking = asyncio.ensure_future(_check_readiness_often(simulation))
    failing = asyncio.ensure_future(simulation.violations.any_found.wait())
    await asyncio.wait([playing, failing], return_when=asyncio.FIRST_COMPLETED)
    failing.cancel()
    looking.cancel()
    if playing.done():
        playing.result()
    else:
        playing.cancel()


async def _check_readiness_often(simulation: Simulation) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        simulation.violations.check(simulation.checkers.readiness.look)


async def all_phases(simulation: Simulation) -> None:
    plan, workload = simulation.plan, simulation.workload
    await simulation.start()
    if "access" in plan.conditions:
        await _begin_access(simulation)
    upload, going_on = workload.begin_long_upload()
    busy = (
        _load_under_faults(simulation),
        workload.collect("busy", plan.fault_s),
        workload.run_pipelines(),
        workload.pull_cold_ranges("busy", plan.fault_s),
        workload.change_access("busy", 3 * plan.operations // 2, plan.fault_s),
    )
    await asyncio.gather(*busy, *map(simulation.strike, plan.faults))
    await simulation.heal()
    await simulation.converge()
    going_on.cancel()
    await asyncio.gather(going_on, return_exceptions=True)
    await asyncio.sleep(CALM_S + 0.1)
    await asyncio.gather(
        workload.load(plan.calm_operations, "calm"),
        workload.collect("calm", 3 * GRACE_S),
        workload.pull_cold_ranges("calm", 3 * GRACE_S),
        workload.change_access("calm", plan.calm_operations, 3 * GRACE_S),
    )
    await upload.finish(simulation.nodes[0])
    await asyncio.sleep(1.0)
    if "lose-one" in plan.conditions and len(simulation.nodes) > 1:
        await _lose_one(simulation)
    await simulation.check_invariants()


async def _begin_access(simulation: Simulation) -> None:
    """Make the accounts of a run, and wait until all instances have them."""
    changes, states = simulation.workload.access_changes(), simulation.checkers.access_states
    await changes.prepare(simulation.nodes[0], simulation.requests, "enforced" in simulation.plan.conditions)
    begun_s = simulation.now_s
    while len({states.of(node).texts for node in simulation.nodes}) > 1:
        if simulation.now_s - begun_s > CONVERGENCE_S:
            simulation.violations.report("the first facts of access control are not everywhere")
            return
        await asyncio.sleep(0.1)


async def _load_under_faults(simulation: Simulation) -> None:
    await simulation.workload.load(simulation.plan.operations, "busy")
    if "forgotten" in simulation.plan.faults:
        # Something happens while the removed instance is away.
        await simulation.workload.load(simulation.plan.operations, "busy meanwhile")


async def _lose_one(simulation: Simulation) -> None:
    """Destroy an instance as its answer to a push leaves, in calm weather: only content may be gone with it."""
    rng = random.Random(f"{simulation.plan.seed} lost")
    victim, name = rng.choice(simulation.nodes), f"client-{simulation.plan.seed}"

    def strike(node: Node, operation: Operation) -> None:
        if node is victim and operation is simulation.requests.latest(name) and operation.kind == "push":
            simulation.lifecycle.destroy_copies(node)

    simulation.requests.on_write_answer.append(strike)
    places = simulation.nodes
    pusher = Client(name, simulation.cluster.network, lambda: places, simulation.requests, f"{name} pushes")
    pusher.credential = simulation.client(name).credential
    for _ in range(TRIES):  # where disks have budgets, all may be refused
        if victim.up and not simulation.violations.any_found.is_set():
            await pusher.push(victim, "app", "last", rng.choice(ALL_IMAGES))
    simulation.requests.on_write_answer.remove(strike)
    if not victim.up:
        simulation.disturbances.fired("gone for good")
    await asyncio.sleep(CALM_S)

"""The checks at the end of a run, when the cluster has converged and is calm."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from simulations.checkers import bounds, convergence
from simulations.faults import MANGLING
from simulations.workload.final_reads import FinalReads
from simulations.workload.long_upload import loses_uploads

if TYPE_CHECKING:
    from simulations.simulation import Simulation

MOMENTS = 40
CALM_REQUESTS_S = 4.0


async def check_invariants(simulation: "Simulation") -> None:
    """Check agreement, holders, identities, bounds and every answer, in this order."""
    nodes, checkers, check = simulation.nodes, simulation.checkers, simulation.violations.check
    for node in nodes:
        simulation.commits.observe(node)
    live = check(convergence.check_agreement, nodes) or {}
    if "access" in simulation.plan.conditions:
        check(checkers.access.check_end, nodes)
    check(checkers.identities.check_end, nodes)
    check(checkers.holders.check_end)
    for document, identities in live.items():
        check(checkers.acknowledged.check_end, document, identities)
    await _check_bounds(simulation)
    before = simulation.cluster.network.requests
    await asyncio.sleep(CALM_REQUESTS_S)
    count = simulation.cluster.network.requests - before
    check(bounds.check_calm_requests, count, len(nodes), CALM_REQUESTS_S)
    await FinalReads(simulation).carry_out()


async def _check_bounds(simulation: "Simulation") -> None:
    """Check that nothing waits any more, and that nothing authentic was refused."""
    nodes, gone, lost = simulation.nodes, simulation.cluster.gone, simulation.checkers.lost
    check = simulation.violations.check
    for node in nodes:
        if node.instance is not None:
            for _ in range(MOMENTS):
                # A round of anti-entropy records its sync point, and replicas arrive in many small pieces.
                if bounds.waiting(node.instance, lost.digests):
                    await asyncio.sleep(0.05)
            # An instance that was told of a change by one that is gone goes on asking for it a while.
            check(bounds.check_queues, node.name, node.instance, lost.digests, bool(gone))
            check(bounds.check_wanted, node.name, node.instance, lost.nowhere())
    check(bounds.check_tasks, len(asyncio.all_tasks()), len(simulation.cluster.disks))
    refused = sum((node.refused() for node in [*nodes, *gone]), Counter[str]())
    if not MANGLING & set(simulation.plan.faults) and not loses_uploads(simulation.plan.faults):
        check(bounds.check_refused, refused)

"""The parts of a simulation that faults strike, and report to."""

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from simulations.cluster import SimulatedCluster
from simulations.node import Node

if TYPE_CHECKING:
    from simulations.disturbances import Disturbances
    from simulations.lifecycle import Lifecycle
    from simulations.plan import Plan
    from simulations.request_observer import RequestObserver
    from simulations.violations import Violations
    from simulations.workload.workload import Workload

FORGED_TAG = "forged"
BUS_CUT = "bus cut"
BODY_BROKEN = "reset in a body"


class FaultTarget(Protocol):
    """The parts of a `Simulation` that faults use."""

    plan: "Plan"
    cluster: SimulatedCluster
    disturbances: "Disturbances"
    lifecycle: "Lifecycle"
    requests: "RequestObserver"
    violations: "Violations"
    workload: "Workload"


Fault = Callable[[FaultTarget, random.Random], Awaitable[None]]


def one_of(target: FaultTarget, rng: random.Random) -> Node | None:
    """An instance to strike, unless it is the last one."""
    running = target.cluster.running()
    return rng.choice(running) if len(running) > 1 else None

"""The plan of a run, drawn from its seed before it begins, and its outcome."""

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from simulations.faults import BUS_FAULTS, FAULTS, MEMBER_FAULTS, PROCESS_FAULTS

SITES = (("eu", "us"), ("eu", "eu", "us"), ("eu", "us", "ap"), ("eu", "eu", "us", "us"), ("eu", "eu", "eu"))
BUS_ONLY = 0.12
"""The share of runs in which only the bus is in trouble, so that more can be asked of requests."""
PROCESSES = 0.35
"""The share of the others in which processes die or hang alone, or what crosses between them is late or lost."""
MEMBERS = 0.25
"""The share of the others in which an instance leaves, is forgotten, or comes up from a backup."""


@dataclass(frozen=True)
class Plan:
    """The plan of a run."""

    seed: int
    sites: tuple[str, ...] = ("eu", "eu", "us")
    faults: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    """Conditions for the whole run, see `CONDITIONS`."""
    fault_s: float = 12.0
    clients: int = 2
    operations: int = 7
    """Of each client, while there are faults."""
    calm_operations: int = 4
    between_sites_s: float = 0.0
    executor_s: float = 0.002
    """The longest that a job in the executor takes."""


CONDITIONS = {
    "small": 0.25,  # large things are small, see `small_limits`
    "no-bus": 0.05,  # no Redis server is there until all agree
    "lose-one": 0.2,  # at the end, an instance is gone for good as it answers a push
    "collect": 0.2,  # content that no manifest names is collected
    "two-copies": 0.12,  # content is held by two instances, and a push is answered when it is
    "everywhere": 0.05,  # content is held by all
    "evict": 0.15,  # disks have budgets, and content has to go
    "access": 0.3,  # accounts, credentials, groups and grants are changed
    "enforced": 0.6,  # only beside `access`: requests need credentials
}
"""Conditions that may hold for a whole run, each with its share of all runs."""


def draw_plan(seed: int, **chosen: Any) -> Plan:
    """The plan of a seed, but for what is chosen."""
    rng = random.Random(f"{seed} plan")
    plan = Plan(
        seed,
        sites=rng.choice(SITES),
        faults=tuple(rng.sample(sorted(FAULTS.keys() - MEMBER_FAULTS - PROCESS_FAULTS), rng.randint(2, 5))),
        between_sites_s=rng.choice((0.0, 0.0, 0.02, 0.08)),
    )
    if rng.random() < BUS_ONLY:
        plan = replace(plan, faults=tuple(name for name in sorted(BUS_FAULTS) if rng.random() < 0.4))
    conditions = tuple(name for name, share in CONDITIONS.items() if rng.random() < share)
    if "access" not in conditions:
        conditions = tuple(name for name in conditions if name != "enforced")
    faults = plan.faults
    if "small" in conditions:  # only there a content has a middle
        faults = tuple(dict.fromkeys((*faults, "reset-in-body")))
    members = random.Random(f"{seed} members")
    if not set(faults) <= BUS_FAULTS and members.random() < MEMBERS:
        faults = (*faults, members.choice(sorted(MEMBER_FAULTS)))
    processes = random.Random(f"{seed} processes")
    if not set(faults) <= BUS_FAULTS and processes.random() < PROCESSES:
        faults = (*faults, *processes.sample(sorted(PROCESS_FAULTS), processes.randint(1, 3)))
    if "two-copies" in conditions:  # only there a disk may be destroyed
        faults = tuple(dict.fromkeys((*faults, "disk-destroyed")))
    return replace(plan, **({"conditions": conditions, "faults": faults} | chosen))


@dataclass
class Outcome:
    """The outcome of a run."""

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
    reached: Counter[str]
    """Paths that were come by, see `coverage_marks`."""

"""Making a failing run small: the least faults, and the fewest clients and operations that still fail.

Faults draw from a randomness of their own each, so that one can be left out without changing the others; a shorter run
is another run all the same, so what is found is a smaller failure, not always the very same one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from simulations.plan import Outcome, Plan


def shrink(plan: Plan, run: Callable[[Plan], Outcome], tries: int = 40) -> Outcome:
    """The outcome of the smallest plan found that fails. `plan` is one that does."""
    smallest = run(plan)
    found = True
    while found and tries > 0:
        found = False
        for smaller in _smaller(smallest.plan):
            tries -= 1
            outcome = run(smaller)
            if outcome.violations:
                smallest, found = outcome, True
                break
            if tries <= 0:
                break
    return smallest


def _smaller(plan: Plan) -> Iterator[Plan]:
    for fault in plan.faults:
        yield replace(plan, faults=tuple(name for name in plan.faults if name != fault))
    for condition in plan.conditions:
        yield replace(plan, conditions=tuple(name for name in plan.conditions if name != condition))
    if plan.calm_operations:
        yield replace(plan, calm_operations=0)
    for operations in (plan.operations // 2, plan.operations - 1):
        if 0 < operations < plan.operations:
            yield replace(plan, operations=operations)
    if plan.clients > 1:
        yield replace(plan, clients=plan.clients - 1)
    if len(plan.sites) > 2:
        yield replace(plan, sites=plan.sites[:-1])


def command(plan: Plan) -> str:
    """Return the command that repeats a plan."""
    words = [f"python -m simulations --seed {plan.seed} --runs 1 --sites {','.join(plan.sites)}"]
    words.append(f"--faults {','.join(plan.faults) or 'none'}")
    words.append(f"--conditions {','.join(plan.conditions) or 'none'}")
    words.append(f"--clients {plan.clients} --operations {plan.operations} --calm-operations {plan.calm_operations}")
    words.append(f"--duration {plan.fault_s:g} --between-sites {plan.between_sites_s:g}")
    return " ".join(words)

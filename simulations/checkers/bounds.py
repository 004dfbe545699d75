"""Queues, tasks and questions between instances stay bounded, and nothing is left over once all is calm."""

from collections import Counter
from collections.abc import Set

from registry.instance import Instance
from simulations.checkers import Violation

MAX_TASKS = 75
"""Of each instance, its worker's among them, and those that just stopped when it was killed."""
MAX_CALM_REQUESTS_PER_S = 6.0


def waiting(instance: Instance, lost: Set[str]) -> dict[str, int]:
    """Return what waits at an instance, by its kind. Content in `lost` is searched for again and again, and left
    out."""
    cluster = instance.cluster
    counts = {
        "held frames": cluster.applier.held,
        "acknowledgements": len(cluster.acknowledgements._waits),
        "documents due": cluster.diff_requests.due,
        "transfers": len(cluster.transfers._transfers.keys() - lost),
        "bodies": len(cluster.bodies._fetching),
        "writes": len(instance.catalog.database._queue),
    }
    return {what: count for what, count in counts.items() if count}


def check_queues(name: str, instance: Instance, lost: Set[str], may_ask: bool) -> None:
    """Once all agree, nothing waits any more."""
    for what, count in waiting(instance, lost).items():
        if may_ask and what == "documents due":
            continue
        raise Violation(f"{name}: {count} {what} are left over once all is calm")


def check_wanted(name: str, instance: Instance, nowhere: Set[str]) -> None:
    """Every manifest that a fact names is here, so that it can be served when all others are gone; but for those that
    were lost with a disk and are nowhere."""
    for digest in sorted(set(instance.catalog.queries.missing_bodies(len(nowhere) + 1)) - nowhere):
        raise Violation(f"{name} lacks the body of {digest} in the end")


def check_tasks(count: int, starts: int) -> None:
    if count > MAX_TASKS * starts:
        raise Violation(f"{count} tasks at once")


def check_refused(refused: Counter[str]) -> None:
    """Nothing is refused for its MAC where nothing is forged or changed, and keys are exchanged in good order."""
    if refused["unauthentic"]:
        raise Violation(
            f"{refused['unauthentic']} frames or requests were refused as unauthentic, and all were authentic"
        )


def check_calm_requests(count: int, instances: int, seconds: float) -> None:
    """Instances that agree have little to ask each other."""
    if count > MAX_CALM_REQUESTS_PER_S * instances * seconds:
        raise Violation(f"{count} requests between {instances} instances that agree, in {seconds} s")

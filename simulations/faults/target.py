"""What faults need of a run."""

import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from simulations.cluster import SimulatedCluster
from simulations.history import Operation
from simulations.lost_content import LostContent
from simulations.node import Node

FORGED_TAG = "forged"
BUS_CUT = "bus cut"
BODY_BROKEN = "reset in a body"


class FaultTarget(Protocol):
    """What faults need of a run."""

    cluster: SimulatedCluster
    lost: LostContent
    conditions: tuple[str, ...]
    """Of the plan."""
    on_answer: list[Callable[[Node, Operation], None]]
    """Told the instance when its answer to a client's write leaves."""

    def violate(self, what: str) -> None:
        """A promise was broken."""

    def fired(self, kind: str) -> None:
        """Count that a fault struck."""

    def living(self) -> list[Node]:
        """Instances that run."""

    async def restart(self, node: Node) -> None:
        """Start a dead instance, after it has been checked alone."""

    def disturb(self) -> None:
        """The world is not calm."""

    def put_back(self, node: Node) -> None:
        """A disk is about to be put back to an earlier state: what only it had is lost."""

    def copied(self, node: Node, twin: Node) -> None:
        """Another instance begins on a copy of a disk."""

    def left(self, node: Node) -> None:
        """An instance has left for good: nothing may be lost with it."""

    def lose(self, node: Node) -> None:
        """An instance is gone for good with its disk: what only it had is lost."""

    def forgotten(self, node: Node, instance: str) -> None:
        """Somebody has been told that an instance is gone for good."""


Fault = Callable[[FaultTarget, random.Random], Awaitable[None]]


def one_of(target: FaultTarget, rng: random.Random) -> Node | None:
    """An instance to strike, unless it is the last one."""
    living = target.living()
    return rng.choice(living) if len(living) > 1 else None

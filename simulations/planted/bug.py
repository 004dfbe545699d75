"""A planted bug, and the hunt for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

from simulations.phases import play
from simulations.plan import Outcome, Plan, draw_plan
from simulations.run import Scenario, run


@dataclass(frozen=True)
class Planted:
    """A bug, and what brings it to light."""

    name: str
    plant: "Callable[[], Bug]"
    faults: tuple[str, ...]
    within: int
    """Seeds, beginning with 0, within which it is caught."""
    sites: tuple[str, ...] = ("eu", "eu", "us")
    chosen: tuple[tuple[str, Any], ...] = ()
    """Further choices of the plan."""
    scenario: Scenario = play

    def plan(self, seed: int) -> Plan:
        chosen = {"operations": 12, "between_sites_s": 0.0, "conditions": ()} | dict(self.chosen)
        return draw_plan(seed, faults=self.faults, sites=self.sites, **chosen)

    def hunt(self) -> tuple[int, Outcome] | None:
        """The first seed that catches it, and how; None where none does."""
        for seed in range(self.within):
            with self.plant():
                outcome = run(self.plan(seed), self.scenario)
            if outcome.violations:
                return seed, outcome
        return None


Bug = AbstractContextManager[Any]


def together(*patches: Bug) -> Bug:
    """Several changes that are one bug."""
    stack = ExitStack()
    for patch in patches:
        stack.enter_context(patch)
    return stack


def nothing(*arguments: Any, **named: Any) -> None:
    return None


async def nothing_async(*arguments: Any, **named: Any) -> None:
    return None

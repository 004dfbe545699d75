"""The invariants that a run has broken. The first violation ends the run."""

import asyncio
from collections.abc import Callable
from typing import Any

from simulations.checkers import Violation


class Violations:
    """Collects violations, each with the virtual time at which it was found."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.found: list[str] = []
        self.any_found = asyncio.Event()

    def report(self, what: str) -> None:
        """Record a violation."""
        self.found.append(f"at {self._now_s():.3f} s: {what}")
        self.any_found.set()

    def check(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """Make a check and return its result, or record its `Violation` and return None."""
        try:
            return check(*arguments)
        except Violation as violation:
            self.report(str(violation))

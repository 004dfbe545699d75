"""The time of a push is later than all its instance had seen, and near its clock or what it had seen.

It decides between pushes that did not see each other; a clock that is far ahead must not drag the others' along.
"""

from collections.abc import Sequence
from typing import NamedTuple

from crdt.clock import COUNTER_BITS, MAX_AHEAD_MS
from simulations.checkers import Violation
from simulations.checkers.acknowledged import says
from simulations.history import Commit, CommittedOperation, Operation
from simulations.node import Node
from simulations.process import Process

SAME_MOMENT = 1 << COUNTER_BITS


class Bounds(NamedTuple):
    """Between which times an operation's stamp has to be."""

    above: int
    upto: int


class Stamps:
    """Remembers the latest time that each start of an instance has seen and may follow."""

    def __init__(self) -> None:
        self._seen: dict[Process, int] = {}

    def note(self, commit: Commit) -> None:
        """An instance's document has changed. Only where that is by others' doing alone, it is known what it saw."""
        process, recent = commit.node.process, commit.node.recent_ms
        if process is not None and recent and not commit.operations:
            bound = (min(recent) + MAX_AHEAD_MS) << COUNTER_BITS
            fresh = commit.after.facts.keys() - commit.before.facts.keys()
            times = [commit.after.facts[identity].time for identity in fresh]
            self._seen[process] = max([self._seen.get(process, 0), *(time for time in times if time <= bound)])

    def started(self, node: Node) -> None:
        """Forget what a started instance had seen: its clock has not seen what is on its disk, such as a restored
        backup."""
        if node.process is not None:
            self._seen.pop(node.process, None)

    def bounds(self, node: Node) -> Bounds:
        """For what an instance commits now."""
        seen = self._seen.get(node.process, 0) if node.process is not None else 0
        return Bounds(seen, max((node.latest_ms + MAX_AHEAD_MS) << COUNTER_BITS, seen) + SAME_MOMENT)


def check_stamp(operation: Operation, written: Sequence[CommittedOperation]) -> None:
    """A push was acknowledged: `written` is what instances of its site wrote in its repository since it was sent."""
    own = [one for one in written if one.node.name == operation.node and says(operation, one)]
    times = [(one.bounds, next(fact.time for fact in one.said.values())) for one in own]
    if times and not any(bounds.above < time <= bounds.upto for bounds, time in times):
        raise Violation(f"{operation} has the time {times[0][1]:x}, which is not in {times[0][0]}")

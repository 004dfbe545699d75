"""Read-your-writes within a site, as clients see it: a pull that begins after a 201 or 202 at any ready instance of the
site shows that write or a later one.

Checked in the middle of faults: an instance or its primary that hangs or is killed, a bus that is gone, and clocks are
no excuse. Faults that part instances of a site are one, since an instance that hears no neighbour serves alone; so are
those that the promise does not speak of, such as disks that fail or are put back.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from simulations.checkers import Violation
from simulations.history import Operation
from simulations.write_order import Order

ACTIONS = {"push": "push", "delete tag": "delete-tag", "delete manifest": "delete-manifest", "pull manifest": "read"}
SETTLE_S = 6.0
"""The time after a partition for which instances may answer as they did when they were alone: two heartbeats to hear
each other, and one for what they lack."""


@dataclass
class Tagged:
    """A request about a tag, as `simulations.write_order` looks at it."""

    operation: Operation
    action: str
    site: str
    member: str
    begin: float
    is_ready: bool
    end: float = math.inf
    status: int = 0
    value: str = ""


class ReadYourWrites:
    """Remembers the writes of each tag, and judges each pull. `is_parted` tells whether instances of a site were parted
    between two times, or just before."""

    def __init__(self, is_parted: Callable[[str, float, float], bool]) -> None:
        self._is_parted = is_parted
        self._writes: dict[tuple[str, str], list[Tagged]] = defaultdict(list)
        self._deletes: dict[str, list[Tagged]] = defaultdict(list)
        """Of manifests, by repository: they may take away any tag."""
        self._begun: dict[int, Tagged] = {}
        self.checked = 0
        """Pulls that had to show at least one acknowledged write."""

    def begin(self, operation: Operation, site: str, is_ready: bool) -> None:
        """A request leaves its client, for an instance that a balancer would have sent it to or not."""
        action = ACTIONS.get(operation.kind)
        if action is None:
            return
        begun = Tagged(operation, action, site, operation.node, operation.begun_s, is_ready, value=operation.digest)
        self._begun[operation.number] = begun
        if action == "delete-manifest":
            self._deletes[operation.repository].append(begun)
        elif action != "read":
            self._writes[operation.repository, operation.reference].append(begun)

    def end(self, operation: Operation, digest: str = "") -> None:
        """An answer has come, or will not come; `digest` is what a pull showed. Raises Violation."""
        begun = self._begun.pop(operation.number, None)
        if begun is None or operation.status is None or operation.ended_s is None:
            return
        begun.end, begun.status = operation.ended_s, operation.status
        if begun.action == "read" and begun.status in (200, 404):
            begun.value = digest
            self._check(begun)

    def _check(self, read: Tagged) -> None:
        operation = read.operation
        writes = self._writes[operation.repository, operation.reference] + self._deletes[operation.repository]
        order = Order(self._is_parted, writes)
        must_show = False
        for write in order.acknowledged():
            if write.end >= read.begin or write.site != read.site or not read.is_ready:
                continue
            if self._is_parted(read.site, write.begin, read.end):
                continue
            must_show = True
            if order.forbids(write, read):
                after_s = read.begin - write.end
                what = f"{write.action} {write.value} at {write.member}"
                raise Violation(f"{operation} shows {read.value or 'nothing'} {after_s:.3f} s after {what}")
        self.checked += must_show

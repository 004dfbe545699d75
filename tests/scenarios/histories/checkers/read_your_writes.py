"""Read-your-writes within a site: after a 201 or 202 every ready member of the site shows that write or a later one.

The promise has one exception, a partition inside the site, because a member that hears no neighbour serves alone. Every
other fault is covered: a primary that hangs, a bus that is gone, kills, clocks.
"""

import bisect

from simulations.write_order import Order
from tests.scenarios.histories.checkers.found import Found, describe
from tests.scenarios.histories.history import READS, SHARED, History, Operation

LATEST = 64
"""So many acknowledged writes before a read it is compared with: what is older than earlier ones is older than these,
too."""
UPLOADS_KEPT_S = 10.0
"""Blobs without a manifest may be collected after their grace (`members.SETTINGS`), which is a little longer."""


def check(history: History) -> Found:
    found = Found()
    for key, operations in history.by_key(READS).items():
        if key.startswith(SHARED):
            continue
        order = Order(history.is_parted, operations)
        acknowledged = sorted(order.acknowledged(), key=lambda write: write.end)
        for read in operations:
            if read.action in READS and read.is_answered:
                _check_read(history, order, acknowledged, read, found)
    for push in history.operations:
        if push.action == "push" and push.relies_since and push.status == 404:
            _check_uploads(history, push, found)
    return found


def _check_uploads(history: History, push: Operation, found: Found) -> None:
    """A push is refused for want of blobs whose uploads were acknowledged at its site."""
    if push.end - push.relies_since > UPLOADS_KEPT_S:
        return
    if push.is_ready and not history.is_parted(push.site, push.relies_since, push.end):
        text = f"a push of {push.key} at member {push.member} did not find blobs whose uploads were answered before"
        found.add("read-your-writes", push.begin, text)
    else:
        found.excused += 1


def _check_read(history: History, order: Order, acknowledged: list[Operation], read: Operation, found: Found) -> None:
    must_show, stale, excused = False, None, False
    before = bisect.bisect_left(acknowledged, read.begin, key=lambda write: write.end)
    for write in acknowledged[max(before - LATEST, 0) : before]:
        if write.site != read.site:
            continue
        covered = read.is_ready and not history.is_parted(read.site, write.begin, read.end)
        must_show |= covered
        if order.forbids(write, read):
            stale, excused = (write, excused) if covered else (stale, True)
    found.checked += must_show
    found.excused += stale is None and excused
    if stale is not None:
        found.add("read-your-writes", read.begin, describe(stale, read))

"""Acknowledged pushes are readable at every member once all faults are healed: the tag, the manifest and its blobs.

A push that a later write replaced, or that overlaps one, need not be what the tag shows; its manifest must be there
unless a delete may have taken it away.
"""

from simulations.write_order import Order
from tests.scenarios.histories.checkers.found import Found, describe
from tests.scenarios.histories.history import FINAL, SHARED, History


def check(history: History) -> Found:
    found = Found()
    for key, operations in history.by_key(FINAL).items():
        order = Order(history.is_parted, operations)
        pushes = [write for write in order.acknowledged() if write.action == "push"]
        for read in operations:
            if read.action not in FINAL:
                continue
            found.checked += 1
            if not read.is_answered:
                found.add("acknowledged", read.begin, f"{read.action} of {key} at member {read.member}: {read.status}")
            elif not key.startswith(SHARED):
                lost = [push for push in pushes if order.forbids(push, read)]
                if lost:
                    found.add("acknowledged", read.begin, describe(lost[-1], read))
    return found

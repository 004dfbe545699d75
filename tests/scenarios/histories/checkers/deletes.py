"""Deletes stay: what an acknowledged delete took away, and no client pushed again, is nowhere shown after healing."""

from simulations.write_order import Order
from tests.scenarios.histories.checkers.found import Found, describe
from tests.scenarios.histories.history import SHARED, History

READS = ("final-read", "final-manifest")


def check(history: History) -> Found:
    found = Found()
    for key, operations in history.by_key(READS).items():
        if key.startswith(SHARED):
            continue
        order = Order(history.is_parted, operations)
        deletes = [write for write in order.acknowledged() if write.action != "push"]
        for read in operations:
            if read.action in READS and read.is_answered:
                found.checked += bool(deletes)
                undone = [delete for delete in deletes if order.forbids(delete, read)]
                if undone:
                    found.add("deletes", read.begin, describe(undone[-1], read))
    return found

"""Read-your-writes within a site: after a 201 or 202 every ready member of the site shows that write or a later one.

The promise has one exception, a partition inside the site, because a member that hears no neighbor serves alone. Every
other fault is covered: a primary that hangs, a bus that is gone, kills, clocks.
"""

from dataclasses import dataclass, field

from tests.scenarios.histories.history import READS, WRITES, Anomaly, History, Operation
from tests.scenarios.histories.order import TagOrder, constrains


@dataclass
class Result:
    anomalies: list[Anomaly] = field(default_factory=list)
    checked: int = 0
    """Reads that had to show at least one acknowledged write."""
    excused: int = 0
    """Reads that would be anomalies but for a partition of the site, or a member that was not ready."""


def check(history: History) -> Result:
    result = Result()
    for key, operations in history.by_key((*WRITES, *READS)).items():
        order = TagOrder(history, operations)
        acknowledged = sorted(order.acknowledged(), key=lambda write: write.end)
        for read in operations:
            if read.action in READS and read.is_answered:
                _check_read(history, key, order, acknowledged, read, result)
    return result


def _check_read(
    history: History, key: str, order: TagOrder, acknowledged: list[Operation], read: Operation, result: Result
) -> None:
    required, stale, excused = False, None, False
    for write in acknowledged:
        if write.end >= read.begin:
            break
        if write.site != read.site or not constrains(write, read.value):
            continue
        covered = read.is_ready and not history.is_parted(read.site, write.begin, read.end)
        required |= covered
        if not order.is_possible(read.value, write, read.end):
            stale, excused = (write, excused) if covered else (stale, True)
    result.checked += required
    if stale is not None:
        result.anomalies.append(Anomaly("read-your-writes", read.begin, _describe(key, stale, read)))
    elif excused:
        result.excused += 1


def _describe(key: str, write: Operation, read: Operation) -> str:
    shown = read.value[:19] or "nothing"
    return (
        f"{key}: {write.action} {write.value[:19]} at member {write.member} was answered {write.status} at "
        f"{write.end:.3f}; a read at member {read.member}, begun {read.begin - write.end:.3f} s later and answered "
        f"after {read.end - read.begin:.3f} s, showed {shown}"
    )

"""Monotonic reads: what was shown is not followed by something older.

At one member this holds always, because its processes read the same committed rows: under every fault, in rotation or
not. Between members of a site a write that has no answer yet may be shown by one member and not by another one; in calm
it must be shown everywhere some seconds later, also when it never gets an answer. (Acknowledged writes are shown
everywhere at once: see read_your_writes.)
"""

from collections import deque

from simulations.write_order import Order
from tests.scenarios.histories.checkers.found import Found
from tests.scenarios.histories.history import SHARED, History, Operation

CALM_S = 12.0
"""So long no fault was under way at the site: a member may have hung for as long as the longest fault lasts, and then
two heartbeats pass before the others ask for what it has."""
REMEMBERED = 64
"""Earlier reads of a tag that each read is compared with. Older ones are superseded by those in nearly all cases."""


def check(history: History) -> Found:
    found = Found()
    for key, operations in history.by_key(("read",)).items():
        if key.startswith(SHARED):
            continue
        order = Order(history.is_parted, operations)
        reads = sorted((o for o in operations if o.action == "read" and o.is_answered), key=lambda read: read.end)
        for member in sorted({read.member for read in reads}):
            _check_all(order, [read for read in reads if read.member == member], found, history, at_once=True)
        for site in sorted({read.site for read in reads}):
            near = [read for read in reads if read.site == site and read.is_ready]
            _check_all(order, near, found, history, at_once=False)
    return found


def _check_all(order: Order, reads: list[Operation], found: Found, history: History, at_once: bool) -> None:
    earlier: deque[Operation] = deque(maxlen=REMEMBERED)
    waiting: deque[Operation] = deque()
    pause_s = 0.0 if at_once else CALM_S
    for read in sorted(reads, key=lambda read: read.begin):
        while waiting and waiting[0].end + pause_s < read.begin:
            earlier.append(waiting.popleft())
        waiting.append(read)
        if not at_once and not is_calm(history, read.site, read.begin - CALM_S, read.end):
            continue
        found.checked += bool(earlier)
        for before in earlier:
            if before.value != read.value and order.is_older(read, before):
                where = f"member {read.member}" if at_once else f"site {read.site}"
                text = f"{read.key}: {where} showed {before.value[:19] or 'nothing'} at {before.end:.3f}, and then"
                found.add("monotonic reads", read.begin, f"{text} {read.value[:19] or 'nothing'}")
                break


def is_calm(history: History, site: str, begin: float, end: float) -> bool:
    return not any(site in w.sites and w.begin <= end and begin <= w.end for w in history.windows)

"""Requests fail only where a fault explains it: one was under way, or had ended a moment before.

Also a fault at another site explains a failure, since a push may wait for a holder there. A machine that stood still
explains it too. An instance that ends without being ended is never explained.
"""

from collections import Counter

from tests.scenarios.histories.checkers.found import Found
from tests.scenarios.histories.history import History, Operation

AFTERMATH_S = 15.0
"""The time after a fault in which its effects may still refuse requests: a start and the wait for the others take up to
ten."""
EXPECTED = {"push": (201,), "upload": (201,), "delete-tag": (202, 404), "delete-manifest": (202, 404)}
EXPECTED_OF_READS = (200, 404)


def check(history: History) -> Found:
    found = Found()
    for operation in history.operations:
        if not is_refused(operation):
            continue
        found.checked += 1
        if is_explained(history, operation):
            found.excused += 1
        else:
            text = f"{operation.action} at member {operation.member}: {operation.status or operation.note}"
            found.add("refusals", operation.begin, f"{text}, and no fault explains it")
    for window in history.ended:
        found.add("refusals", window.begin, f"{window.what} ended by itself")
    return found


def is_refused(operation: Operation) -> bool:
    if operation.action == "push" and not operation.relies_since and operation.status in (400, 404):
        return False  # what was pushed before may have been released by a delete meanwhile
    return operation.status not in EXPECTED.get(operation.action, EXPECTED_OF_READS)


def is_explained(history: History, operation: Operation) -> bool:
    until = operation.end if operation.status else operation.begin + AFTERMATH_S
    return any(
        window.begin <= until and operation.begin <= window.end + AFTERMATH_S
        for window in (*history.windows, *history.stalls)
    )


def kinds(history: History) -> Counter[str]:
    """Refused requests by action and status; 0 where there was no answer."""
    return Counter(f"{o.action} {o.status}" for o in history.operations if is_refused(o))

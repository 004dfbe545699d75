"""Content has the bytes of its digest, whatever is damaged on a disk. An answer that ends too early has failed, and
is not wrong; one that ends well and differs is."""

from tests.scenarios.histories.checkers.found import Found
from tests.scenarios.histories.history import History

WRONG_BYTES = "wrong bytes"


def check(history: History) -> Found:
    found = Found()
    for operation in history.operations:
        if operation.status == 200:
            found.checked += 1
            if operation.note == WRONG_BYTES:
                text = f"{operation.action} of {operation.key} at member {operation.member} has other bytes"
                found.add("content", operation.begin, text)
    return found

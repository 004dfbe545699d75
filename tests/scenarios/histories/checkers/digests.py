"""Convergence: after healing all members are ready, have one state digest, and show the same for every tag."""

from tests.scenarios.histories.checkers.found import Found
from tests.scenarios.histories.history import History


def check(history: History) -> Found:
    found = Found(checked=1)
    at = max((window.end for window in history.windows), default=0.0)
    if history.agreed_after_s is None:
        found.add("digests", at, f"members do not agree after healing, or are not ready: {history.digests}")
        return found
    shown: dict[str, dict[str, list[int]]] = {}
    for read in history.operations:
        if read.action == "final-read" and read.is_answered:
            shown.setdefault(read.key, {}).setdefault(read.value, []).append(read.member)
    for key, values in shown.items():
        if len(values) > 1:
            found.add("digests", at, f"{key} is shown differently after healing: {values}")
    return found

"""Waiting until the other instances have a change of access control."""

import time
from pathlib import Path
from typing import Any

from registry.cli.accounts import ask_access

POLL_INTERVAL_S = 1.0
"""Half of the interval between heartbeats, which carry what is waited for."""


def wait_for_members(url: str, timeout_s: float, config: Path | None) -> bool:
    """Wait until each reachable member has the facts of the instance that is asked, and print the result. Return
    whether all members have them: one that cannot be reached has not said so. Raises NoAnswer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = ask_access(url, "confirmations", {}, config)
        left_s = deadline - time.monotonic()
        if not any(one["reachable"] for one in answer["unconfirmed"]) or left_s <= 0:
            break
        time.sleep(min(POLL_INTERVAL_S, left_s))
    _show(answer)
    return not answer["unconfirmed"]


def _show(answer: dict[str, Any]) -> None:
    unconfirmed = answer["unconfirmed"]
    if not unconfirmed:
        print(f"all other instances have confirmed it ({answer['members']})")
        return
    print(f"{len(unconfirmed)} of {answer['members']} other instances have not confirmed it:")
    for one in unconfirmed:
        at = f" at site {one['site']}" if one["site"] else ""
        print(f"  {one['name'] or one['instance']}{at}{'' if one['reachable'] else ', which is not reached'}")

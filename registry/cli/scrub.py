"""Asking a running instance to check its content, and waiting for the end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from registry.cli.client import NoAnswer, act, ask

PATH = "/_concord/scrub"
POLL_INTERVAL_S = 0.5


def begin_scrub(url: str, secrets: Sequence[str]) -> Any:
    """Ask for a full pass. Raises NoAnswer."""
    answer = act(url, PATH, None, secrets)
    if not isinstance(answer, dict) or not {"begun", "running"} <= answer.keys():
        raise NoAnswer(f"{url} gave a malformed answer: expected the progress of a scrub")
    return answer


def wait_for_scrub(url: str, begun: Any, progressed: Callable[[int], None]) -> Any:
    """Wait until a pass that was answered by `begin_scrub` has ended. Tells how many bytes are done. Raises NoAnswer,
    also when the instance was started again and knows nothing of it any more."""
    started_ms = begun["running"]["started_ms"]
    while True:
        answer = ask(url, PATH)
        if answer["running"] is not None and answer["running"]["started_ms"] == started_ms:
            progressed(answer["running"]["bytes"])
            time.sleep(POLL_INTERVAL_S)
        elif answer["last"] is not None and answer["last"]["started_ms"] == started_ms:
            progressed(answer["last"]["bytes"])
            return answer
        else:
            raise NoAnswer(f"{url} was started again before the check had ended")

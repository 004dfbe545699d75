"""Threads that compute slow hashes, at a low priority: a flood of logins must not slow the requests of others."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

NICENESS = 5
"""The scheduler gives such a thread a third of the time that it gives one of usual priority beside it. Logins must not
starve where the machine is busy all the time."""


def hashing_threads(count: int) -> ThreadPoolExecutor:
    """Return an executor of so many threads. They begin when they are first needed."""
    return ThreadPoolExecutor(count, thread_name_prefix="hashing", initializer=_lower_priority)


def _lower_priority() -> None:
    """Lower the priority of this thread alone, as Linux can. Other systems have no such thread, or keep its
    priority."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)

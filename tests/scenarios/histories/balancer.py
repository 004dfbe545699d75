"""The balancer's view: which members are in rotation, by their /readyz, as the Service of k8s/base decides it.

Every member is probed each second. It leaves the rotation after two failures, and is back after one success.
"""

import contextlib
import threading
import time

from tests.scenarios.histories.members import Member
from tests.support.client import Client

EVERY_S = 1.0
TIMEOUT_S = 1.0
FAILURES_OUT = 2


class Balancer:
    """Probes each member in a thread of its own."""

    def __init__(self, members: list[Member]) -> None:
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._probe, args=(member,), daemon=True) for member in members]
        self.probes = 0
        self.refused = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _probe(self, member: Member) -> None:
        failures = FAILURES_OUT
        while not self._ending.is_set():
            began = time.monotonic()
            is_ready = is_ready_now(member)
            self.probes += 1
            self.refused += not is_ready
            failures = 0 if is_ready else failures + 1
            member.in_rotation = failures < FAILURES_OUT
            self._ending.wait(max(EVERY_S - (time.monotonic() - began), 0))


def is_ready_now(member: Member) -> bool:
    with contextlib.suppress(OSError):
        return Client(member.server.host, member.server.port, TIMEOUT_S).get("/readyz").status == 200
    return False

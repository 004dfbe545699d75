"""Observations of the machine and the data directories: collection at work, instances that end by themselves,
and times in which the machine was too busy to run the harness."""

import threading
import time
from collections import Counter

from tests.scenarios.histories.history import History, Window
from tests.scenarios.histories.members import Members

TICK_S = 0.1
STALL_S = 0.7
"""A tick that comes so late has other processes waiting as well; a read lease is 1 s at most."""
LOOK_EVERY = 20
"""Ticks between two looks at the disks."""


class Watch:
    """The observer of a run, in a thread of its own."""

    def __init__(self, members: Members, history: History, fired: Counter[str]) -> None:
        self._members = members
        self._history = history
        self._fired = fired
        self._held: dict[int, set[str]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        last, ticks = time.monotonic(), 0
        while not self._ending.wait(TICK_S):
            now = time.monotonic()
            if now - last > TICK_S + STALL_S:
                self._history.stalls.append(Window("stall", last, now))
            ticks += 1
            if ticks % LOOK_EVERY == 0:
                self._look()
            last = time.monotonic()

    def _look(self) -> None:
        for member in self._members.all:
            process = member.server.process
            if process is not None and process.poll() is not None and not member.is_down:
                member.is_down = True
                self._history.ended.append(Window("ended", time.monotonic(), what=f"member {member.number}"))
            held = {path.name for path in (member.server.data / "blobs").glob("sha*/??/*")}
            if self._held.get(member.number, set()) - held - self._members.corrupted:
                self._fired["collection"] += 1
            self._held[member.number] = held

"""Carries out the faults of a plan, in a thread of its own, and notes when each was under way."""

import heapq
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.scenarios.histories.faults import links, machines, processes
from tests.scenarios.histories.faults.fired import Fired
from tests.scenarios.histories.history import History, Window
from tests.scenarios.histories.members import Members
from tests.scenarios.histories.plan import Plan, Planned

TICK_S = 0.02
FAULTS: dict[str, Callable[[Members, random.Random], Fired | None]] = {
    name.replace("_", "-"): getattr(module, name)
    for module, names in (
        (processes, ("kill_primary", "kill_worker", "kill_all", "stop_primary", "stop_worker", "stop_all")),
        (links, ("part_members", "part_sites", "one_way_members", "one_way_sites")),
        (links, ("redis_stop", "redis_pause", "redis_cut")),
        (machines, ("clock", "corrupt")),
    )
    for name in names
}


class FaultTarget:
    """The parts of a run that faults strike."""

    def __init__(self, plan: Plan, members: Members, history: History) -> None:
        self._plan = plan
        self._members = members
        self._history = history
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._under_way: dict[int, tuple[Window, Fired]] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.fired: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        """Faults that found nothing to strike."""
        self.failure: BaseException | None = None
        """The exception that ended the thread before its time: a fault of the harness, not of the registry."""

    def start(self) -> None:
        began = time.monotonic()
        for fault in self._plan.faults:
            self._at(began + fault.at_s, lambda fault=fault: self._make(fault))
        self._thread.start()

    def stop(self) -> None:
        """Make no more faults, and undo those that are under way."""
        self._ending.set()
        self._thread.join()
        for number in list(self._under_way):
            self._end(number)
        if self.failure is not None:
            raise RuntimeError("the faults of this run ended before their time") from self.failure

    def _at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), do))

    def _run(self) -> None:
        try:
            self._carry_out()
        except Exception as error:
            self.failure = error

    def _carry_out(self) -> None:
        while self._due and not self._ending.is_set():
            if self._due[0][0] > time.monotonic():
                time.sleep(TICK_S)
            else:
                heapq.heappop(self._due)[2]()

    def _make(self, fault: Planned) -> None:
        window = Window(fault.kind, time.monotonic())
        fired = FAULTS[fault.kind](self._members, random.Random(fault.draw))
        if fired is None:
            self.missed[fault.kind] += 1
            return
        self.fired[fault.kind] += 1
        window.sites, window.parts_site, window.what = fired.sites, fired.parts_site, fired.what
        self._history.windows.append(window)
        number = next(self._numbers)
        self._under_way[number] = window, fired
        if fault.lasts_s:
            self._at(window.begin + fault.lasts_s, lambda: self._end(number))
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        if number in self._under_way:
            window, fired = self._under_way.pop(number)
            with suppress(ProcessLookupError):
                fired.undo()
            window.end = time.monotonic()

"""The log events of a run: what an instance has done and cannot be seen at its seams, such as an eviction or a
compaction, and exceptions that its code does not expect.

Events are selected by name and fields, never by their text.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from registry.telemetry.events import LogEvent
from simulations.process import PROCESS, outside_processes

Listener = Callable[[str, Mapping[str, Any]], None]
"""Given the name of the process that has logged an event, and the event's fields."""


class LogEvents(logging.Handler):
    """Passes log events on to their listeners. A logged exception is one that the registry did not expect: it is
    reported."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.DEBUG)
        self._report = report
        self._listeners: dict[str, list[Listener]] = {}

    def listen(self, event: LogEvent, listener: Listener) -> None:
        """Call a listener with each event of a kind, outside of the process that has logged it."""
        self._listeners.setdefault(str(event), []).append(listener)

    def emit(self, record: logging.LogRecord) -> None:
        details, process = vars(record), PROCESS.get()
        for listener in self._listeners.get(details.get("event", ""), ()):
            outside_processes(partial(listener, process.name if process is not None else "", details["fields"]))
        if record.exc_info is not None and record.exc_info[1] is not None:
            outside_processes(partial(self._report, f"{record.getMessage()}: {record.exc_info[1]!r}"))

    @contextlib.contextmanager
    def received(self) -> Iterator[None]:
        """Receive all events of the registry, and keep them from all other handlers: a record that is kept would keep
        its cluster in memory."""
        log = logging.getLogger("concord")
        before = log.propagate, log.handlers, log.level
        log.propagate, log.handlers = False, [self]
        log.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            log.propagate, log.handlers = before[:2]
            log.setLevel(before[2])

"""Logging by event: every line carries a stable event and its values as fields.

    log = EventLog("concord.members")
    log.warning(LogEvent.CLOCK_SKEW_DETECTED, "the clock of %(member)s is %(offset_s).1f s off", member=…, offset_s=…)

The message is for people and quotes the fields it needs by name. JSON lines hold the event and all fields; text lines
end with the event and those fields that the message does not quote.
"""

import logging
from collections.abc import Mapping

from registry.telemetry.events import LogEvent

RESERVED = frozenset({"time", "level", "logger", "message", "event", "request", "trace"})
"""Names of what every line holds. No field of an event has one of these."""


class EventLog:
    """A logger whose lines all carry an event."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: LogEvent, message: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, event, message, fields)

    def info(self, event: LogEvent, message: str, /, **fields: object) -> None:
        self._write(logging.INFO, event, message, fields)

    def warning(self, event: LogEvent, message: str, /, **fields: object) -> None:
        self._write(logging.WARNING, event, message, fields)

    def error(self, event: LogEvent, message: str, /, **fields: object) -> None:
        self._write(logging.ERROR, event, message, fields)

    def exception(self, event: LogEvent, message: str, /, **fields: object) -> None:
        """Log an error with the exception that is being handled."""
        self._write(logging.ERROR, event, message, fields, with_trace=True)

    def log(self, level: int, event: LogEvent, message: str, /, **fields: object) -> None:
        self._write(level, event, message, fields)

    def _write(
        self, level: int, event: LogEvent, message: str, fields: Mapping[str, object], with_trace: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            extra, trace = {"event": str(event), "fields": fields}, with_trace or None
            self._logger.log(level, message, *_arguments(fields), exc_info=trace, extra=extra, stacklevel=3)


def make_record(event: LogEvent, message: str, /, **fields: object) -> logging.LogRecord:
    """Return the record of an error for a formatter, where logging is not set up."""
    record = logging.LogRecord("concord", logging.ERROR, "", 0, message, _arguments(fields), None)
    record.event, record.fields = str(event), fields
    return record


def _arguments(fields: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """Return the arguments of a record. `logging` formats a message with one mapping by name; an empty mapping would
    count as a positional argument."""
    return (fields,) if fields else ()

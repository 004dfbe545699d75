"""Lines of the log, selected by their event and their fields, never by their text."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from logging import LogRecord

from registry.telemetry.events import LogEvent


def log_lines(text: str) -> list[dict]:
    """Return the lines of a JSON log. Other text, and a line that is not whole yet, is left out."""
    lines = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def select(lines: Iterable[Mapping[str, object]], event: LogEvent, **fields: object) -> list[dict]:
    """Return the lines of an event that hold these fields. A string may be a part of the field's value."""
    return [dict(line) for line in lines if line.get("event") == str(event) and _holds(line, fields)]


def recorded(records: Iterable[LogRecord], event: LogEvent, **fields: object) -> list[dict]:
    """Return the fields of those records of pytest's `caplog` that are of an event and hold these fields."""
    lines = [vars(record).get("fields", {}) | {"event": vars(record).get("event")} for record in records]
    return [{name: value for name, value in line.items() if name != "event"} for line in select(lines, event, **fields)]


def _holds(line: Mapping[str, object], fields: Mapping[str, object]) -> bool:
    return all(
        name in line and (value in str(line[name]) if isinstance(value, str) else line[name] == value)
        for name, value in fields.items()
    )

"""Reasons not to start, in the format of the log: whatever reads JSON lines reads them, too.

The format is a setting itself, and the settings may be invalid. So it is read from where settings come from, without
checking the others. Text is one line that begins with `concord:`, as for all commands.
"""

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from registry.cli.logs import JsonFormatter
from registry.telemetry.event_log import make_record
from registry.telemetry.events import LogEvent

CANNOT_START = 2
VARIABLE = "CONCORD_LOG_FORMAT"


def wants_json(words: Sequence[str]) -> bool:
    """Return whether a command runs an instance whose log is JSON, by its words, the environment, or its file."""
    if words[:1] != ["serve"]:
        return False
    value: object = _option(words, "--log-format") or os.environ.get(VARIABLE)
    file = _option(words, "--config")
    if value is None and file is not None:
        try:
            value = tomllib.loads(Path(file).read_text()).get("log_format")
        except (OSError, ValueError):
            return False
    return value == "json"


def _option(words: Sequence[str], name: str) -> str | None:
    """The last value of an option, in either of its spellings."""
    value = None
    for at, word in enumerate(words):
        if word.startswith(f"{name}="):
            value = word.partition("=")[2]
        elif word == name and at + 1 < len(words):
            value = words[at + 1]
    return value


def refuse(message: str, as_json: bool, reason: str = "") -> NoReturn:
    """Report why the process does not start, and exit."""
    if as_json:
        record = make_record(LogEvent.START_FAILED, "%(problem)s", problem=message, reason=reason)
        print(JsonFormatter([]).format(record), file=sys.stderr)
    else:
        print(f"concord: {message}", file=sys.stderr)
    sys.exit(CANNOT_START)

"""The log of an instance: one line for each event, as text or as JSON, on standard error.

Every line written while a request is served holds the request's id. Line breaks in a path or a header from a client
begin no new line. Secrets are cut out of every line, also out of the lines of libraries: the cluster's keys, user and
password of an address, passwords in a query, and the text that follows Authorization, Basic or Bearer.
"""

import logging
import re
import sys
from datetime import UTC, datetime

import msgspec

from registry.config import Config
from registry.disk_errors import FullDiskFilter
from registry.http.oci.answers import CutOff
from registry.settings.redis_address import passwords
from registry.telemetry.request_ids import CURRENT

SHORTEST_SECRET = 8
"""Shorter ones are words that occur anyway."""
CUT = "…"

_CREDENTIALS = re.compile(
    r"""(?ix) (
        (?<=://) (?= [^/\s"']* @ )
      | [?&] \w* password=
      | \b authorization \W{1,6} (?: b["'] )? (?: (?:basic|bearer) \s+ )?
      | \b (?:basic|bearer) \s+
    ) [^@&\s"',]+"""
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def set_up_logging(config: Config) -> None:
    """Log to standard error as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonFormatter if config.log_format == "json" else TextFormatter)(secrets_of(config)))
    handler.addFilter(_Expected())
    handler.addFilter(FullDiskFilter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("concord").setLevel(config.log_level.upper())


def secrets_of(config: Config) -> list[str]:
    """Return the secrets that no log line may contain, the longest first."""
    secrets = {key.get_secret_value() for key in config.cluster_key}
    for url in config.redis:
        secrets |= passwords(url)
    return sorted((secret for secret in secrets if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)


class _Formatter(logging.Formatter):
    """Splits a record into its parts, and removes secrets from each of them."""

    def __init__(self, secrets: list[str]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._cut(record.getMessage().rstrip()),
        }
        if hasattr(record, "event"):  # other libraries log without one
            line["event"] = record.event
        if CURRENT.get():
            line["request"] = CURRENT.get()
        line |= {name: self._plain(value) for name, value in self._shown(record).items()}
        if record.exc_info:
            line["trace"] = self._cut(self.formatException(record.exc_info))
        return self._line(line)

    def _shown(self, record: logging.LogRecord) -> dict[str, object]:
        """Return the fields that the line holds beside the message."""
        fields: dict[str, object] = getattr(record, "fields", {})
        return fields

    def _plain(self, value: object) -> object:
        return value if value is None or isinstance(value, bool | int | float) else self._cut(str(value))

    def _cut(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, CUT)
        return _CREDENTIALS.sub(rf"\1{CUT}", text)

    def _line(self, line: dict[str, object]) -> str:
        raise NotImplementedError


class JsonFormatter(_Formatter):
    """One object a line."""

    def _line(self, line: dict[str, object]) -> str:
        return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(line).decode())


class TextFormatter(_Formatter):
    """Time, level, logger and message, then the rest as name=value, but for the fields that the message quotes."""

    def _shown(self, record: logging.LogRecord) -> dict[str, object]:
        return {name: value for name, value in super()._shown(record).items() if f"%({name})" not in record.msg}

    def _line(self, line: dict[str, object]) -> str:
        time, level, logger, message = (str(line.pop(name)) for name in ("time", "level", "logger", "message"))
        rest = "".join(f" {name}={_value(value)}" for name, value in line.items())
        return f"{time} {level.upper():7} {logger}: {_printable(message)}{rest}"


def _value(value: object) -> str:
    """Quoted where it would not be one word."""
    text = str(value)
    return text if re.fullmatch(r"[^\s\"=\x00-\x1f]+", text) else f'"{_printable(text.replace(chr(34), chr(39)))}"'


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Expected(logging.Filter):
    """Drops records of errors that clients cause and that are logged elsewhere."""

    def filter(self, record: logging.LogRecord) -> bool:
        cut_off = record.exc_info is not None and record.exc_info[0] is CutOff
        gone = record.exc_info is not None and "the handler is closed" in str(record.exc_info[1])
        return not cut_off and not gone and "Invalid HTTP request" not in record.getMessage()

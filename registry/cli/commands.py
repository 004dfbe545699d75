"""The application that all commands belong to, the options that they share, and JSON output."""

import functools
import inspect
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from registry.cli.client import Login, Trust
from registry.units import to_ms, to_s

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Concord, an OCI container registry for many sites at once.",
    epilog="Exit status: 0 for success, 1 for a finding (differences, damage), 2 for an error.",
)
out = Console(width=None if sys.stdout.isatty() else 200)

Url = Annotated[str, typer.Argument(envvar="CONCORD_URL", help="URL of an instance", show_default=True)]
UrlOption = Annotated[str, typer.Option("--url", envvar="CONCORD_URL", help="URL of an instance")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with the cluster key to sign with; CONCORD_CLUSTER_KEY overrides it"),
]
_Authorities = Annotated[
    Path | None,
    typer.Option(
        "--ca", envvar="CONCORD_CA", help="file with the certificates of the authorities to trust, for https://"
    ),
]
_Login = Annotated[
    Path | None,
    typer.Option(
        "--login", envvar="CONCORD_LOGIN", help="file with NAME:SECRET to sign in with, a password or a robot's key"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
LOCAL = "http://127.0.0.1:5000"
LONG_TIMEOUT_S = 600.0
"""Seconds to wait for an answer that reads the whole catalog or runs a collection."""
Data = Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="data directory")]
_LAST_MS = to_ms(datetime.max.replace(tzinfo=UTC).timestamp())
"""The time from which on Python has no dates."""
CHECKING = (TextColumn("checking"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def asks_instances(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options --ca and --login."""

    @functools.wraps(command)
    def asking(*args: Any, ca: Path | None = None, login: Path | None = None, **options: Any) -> None:
        Trust.authorities, Login.file = ca, login
        command(*args, **options)

    signature = inspect.signature(command)
    annotations = {"ca": _Authorities, "login": _Login}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    asking.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])  # type: ignore[attr-defined]
    asking.__annotations__ = command.__annotations__ | annotations
    return asking


def print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def group_of_commands(name: str, purpose: str) -> typer.Typer:
    """Return a group for the commands that begin with a word."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help=purpose)
    app.add_typer(group, name=name)
    return group


def age_s(text: str) -> float:
    """Seconds. Raises BadParameter."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None:
        raise typer.BadParameter(f"invalid age {text!r}: expected a number and one of s, m, h, d, w, such as 30d")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]


def expiry_ms(age: str | None) -> int | None:
    """Return the time at which something of that age expires, in milliseconds; None for never. Raises BadParameter."""
    return None if age is None else to_ms(time.time() + age_s(age))


def expiry_text(expires_ms: int | None) -> str:
    """Describe when something expires."""
    if expires_ms is None:
        return "no expiry"
    if expires_ms >= _LAST_MS:
        return "expires after the year 9999"
    return f"{'expired' if to_s(expires_ms) <= time.time() else 'expires'} {time_text(expires_ms)}"


def time_text(time_ms: int) -> str:
    """Return a time as people read it, in UTC."""
    return datetime.fromtimestamp(to_s(time_ms), UTC).isoformat(" ", "seconds").removesuffix("+00:00") + " UTC"

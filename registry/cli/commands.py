"""The application that all commands belong to, the options that they share, and JSON output."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from registry.cli.client import Trust

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Concord, an OCI container registry for many sites at once.",
    epilog="Exit status: 0 for success, 1 for a finding (differences, damage), 2 for an error.",
)
out = Console(width=None if sys.stdout.isatty() else 200)

Url = Annotated[str, typer.Argument(envvar="CONCORD_URL", help="URL of an instance", show_default=True)]
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
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
LOCAL = "http://127.0.0.1:5000"
LONG_TIMEOUT_S = 600.0
"""Seconds to wait for an answer that reads the whole catalog or runs a collection."""
Data = Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="data directory")]
CHECKING = (TextColumn("checking"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def asks_instances(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --ca."""

    @functools.wraps(command)
    def asking(*args: Any, ca: Path | None = None, **options: Any) -> None:
        Trust.authorities = ca
        command(*args, **options)

    signature = inspect.signature(command)
    option = inspect.Parameter("ca", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Authorities)
    asking.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    asking.__annotations__ = {**command.__annotations__, "ca": _Authorities}
    return asking


def print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

"""What all commands share: the application they belong to, their common options, and how they print."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Concord, an OCI container registry for many sites at once.",
    epilog="Exit status: 0 for success, 1 for a finding (differences, damage), 2 for an error.",
)
out = Console(width=None if sys.stdout.isatty() else 200)

Url = Annotated[str, typer.Argument(envvar="CONCORD_URL", help="address of an instance", show_default=True)]
KeyFile = Annotated[
    Path | None,
    typer.Option("--config", help="a TOML file with the cluster key to sign with, unless CONCORD_CLUSTER_KEY is set"),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for machines")]
LOCAL = "http://127.0.0.1:5000"
LONG_S = 600.0
"""How long an answer may take that needs much work."""
Data = Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="the data directory")]
CHECKING = (TextColumn("checking"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

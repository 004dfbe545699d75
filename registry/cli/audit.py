"""The commands of the audit log."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from registry.adapters.disk import SystemDisk
from registry.audit.chain import EMPTY, BrokenChain, Head, heads
from registry.audit.log import DIRECTORY, read_lines
from registry.cli.catalog_file import instance_of
from registry.cli.client import ask
from registry.cli.commands import Data, Json, asks_instances, group_of_commands, out, print_json
from registry.errors import CannotStart

audit = group_of_commands("audit", "The audit log of an instance.")

Known = Annotated[
    list[str] | None,
    typer.Option("--head", help="PROCESS:NUMBER:HASH that an earlier run has printed: the log must still hold it"),
]


Witness = Annotated[
    str | None,
    typer.Option("--witness", help="Another instance of the cluster: the log must hold what that one has heard of it"),
]


@audit.command(epilog="Example: concord audit verify --data /var/lib/concord")
@asks_instances
def verify(data: Data, head: Known = None, witness: Witness = None, as_json: Json = False) -> None:
    """Verify that no line of the audit log was altered, removed or inserted.

    A log whose end was cut off, or that was written anew, is found by --witness: other instances hear in heartbeats how
    far each log is. Or keep the lines that this prints elsewhere, and give them to a later run by --head. The exit
    status is 1 for a log that does not hold."""
    known = dict(map(_known, head or []))
    if witness is not None:
        known = _witnessed(data, witness) | known
    found, problems = _verified(data, known)
    if as_json:
        print_json({"heads": {process: end._asdict() for process, end in found.items()}, "problems": problems})
    else:
        for process, end in found.items():
            out.print(f"{process}:{end.number}:{end.hash}", highlight=False)
        for problem in problems:
            out.print(problem, style="red", highlight=False)
    raise typer.Exit(1 if problems else 0)


def _witnessed(data: Path, url: str) -> dict[str, Head]:
    """Return the heads that another instance has heard of a directory's instance. Raises CannotStart and NoAnswer."""
    instance = instance_of(data)
    for member in ask(url, "/_concord/status")["members"]:
        if member["instance"] == instance:
            return {process: Head(*head) for process, head in member["audit_heads"].items()}
    raise CannotStart(f"{url} has not heard of the instance {instance}")


def _known(text: str) -> tuple[str, Head]:
    """Read a head that was printed before. Raises BadParameter."""
    process, _, rest = text.partition(":")
    number, _, hash = rest.partition(":")
    if not (process and number.isascii() and number.isdigit() and hash):
        raise typer.BadParameter(f"invalid head {text!r}: expected PROCESS:NUMBER:HASH")
    return process, Head(int(number), hash)


def _verified(data: Path, known: dict[str, Head]) -> tuple[dict[str, Head], list[str]]:
    """Return the head of each process' log, and what does not hold."""
    disk, found, problems = SystemDisk(data), dict[str, Head](), list[str]()
    try:
        names = disk.names(DIRECTORY)
    except FileNotFoundError:
        names = []
        if not data.is_dir():
            raise CannotStart(f"{data} is no data directory") from None
    for process, files in groupby(names, lambda name: name.partition("-")[0]):
        wanted, end = known.get(process), None
        try:
            for name in files:
                for head in heads(read_lines(disk, name), end):
                    end = head
                    if wanted is not None and head.number == wanted.number and head != wanted:
                        problems.append(f"process {process}: line {head.number} is another one than was known")
        except BrokenChain as broken:
            problems.append(f"process {process}: {broken}")
        found[process] = end or EMPTY
    for process, head in known.items():
        if found.get(process, EMPTY).number < head.number:
            problems.append(f"process {process}: the log ends before line {head.number}, which was known")
    return found, problems

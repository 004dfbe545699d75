"""Commands that work on data directories."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from registry.adapters.clock import SystemClock
from registry.cli.backup import backup as run_backup
from registry.cli.backup import note_backup
from registry.cli.backup import restore as run_restore
from registry.cli.bundle import Moved
from registry.cli.bundle_export import export_bundle
from registry.cli.bundle_import import import_bundle
from registry.cli.catalog_file import instance_of, succession
from registry.cli.commands import CHECKING, Data, Json, app, print_json
from registry.cli.undo import show, since_backup
from registry.cli.verify import DataDirectory
from registry.cluster.rpc.keys import ClusterKey
from registry.config import load_config


@app.command(epilog="Example: concord verify --data /var/lib/concord")
def verify(
    data: Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="data directory")] = Path("data"),
    digests: Annotated[
        bool, typer.Option("--digests", help="compute the digests themselves; takes three times as long")
    ] = False,
    json: Json = False,
) -> None:
    """Read all content and compare it with the checksums taken when it arrived. The instance may be running."""
    directory = DataDirectory(data)
    checked, damaged = 0, []
    with Progress(*CHECKING, console=Console(stderr=True), disable=json) as progress:
        task = progress.add_task("checking", total=directory.total_bytes)
        for one in directory.check(by_digest=digests):
            checked += 1
            progress.advance(task, one.size)
            if one.problem is not None:
                damaged.append({"digest": one.digest, "problem": one.problem})
    if json:
        print_json({"checked": checked, "bytes": directory.total_bytes, "damaged": damaged})
    else:
        for entry in damaged:
            print(f"{entry['digest']}: {entry['problem']}")
        print(f"{checked} contents, {directory.total_bytes} bytes, {len(damaged)} damaged")
    raise typer.Exit(1 if damaged else 0)


@app.command(epilog="Example: concord backup --data /var/lib/concord /backup/concord")
def backup(
    target: Annotated[Path, typer.Argument(help="directory: empty, new, or with an earlier backup")],
    data: Data = Path("data"),
    copy: Annotated[bool, typer.Option("--copy", help="copy content even if it could be linked")] = False,
) -> None:
    """Make a backup, or update one. The instance may be running.

    Content is linked if the file system supports that, and otherwise copied once.
    """
    done = run_backup(data, target, copy)
    note_backup(data, target, done, SystemClock().now_ms())
    _report(f"{done.contents} contents, {done.size_bytes} bytes, {done.new} of them new", done.missing)


@app.command(epilog="Example: concord restore /backup/concord --data /var/lib/concord")
def restore(
    source: Annotated[Path, typer.Argument(help="backup")],
    data: Data = Path("data"),
    beside: Annotated[
        str | None, typer.Option(metavar="URL", help="running instance: list what was deleted there since")
    ] = None,
) -> None:
    """Make a data directory from a backup, and check all content. The result is another instance: start it beside the
    others, and remove the one that is gone. What was deleted since the backup was made stays deleted."""
    done = run_restore(source, data)
    if beside is None:
        print("what was deleted since the backup was made stays deleted where others know of it: --beside URL names it")
    else:
        since = since_backup(data, beside)
        show(f"not at {beside}, and gone here once this instance joins if they were deleted there", since.deleted)
        show(f"tags that point elsewhere at {beside}", since.moved)
    print(succession(instance_of(source), instance_of(data)))
    _report(f"{done.contents} contents, {done.size_bytes} bytes", done.missing)


@app.command(epilog="Example: concord rebuild --data /var/lib/concord")
def rebuild(data: Data = Path("data")) -> None:
    """Make a new catalog from the content files, if it is lost or corrupt. Tags and manifests come from the other
    instances when this one is started."""
    from registry.cli.rebuild import rebuild as run_rebuild
    from registry.runtime.sockets import locked

    with locked(data):
        done = run_rebuild(data)
    if done.aside is not None:
        print(f"the catalog that was there is {done.aside}")
    print(succession(done.before, instance_of(data)))
    _report(f"{done.contents} contents, {done.size_bytes} bytes", done.wrong)


@app.command(name="export", epilog="Example: concord export --data /var/lib/concord /media/bundle 'prod/*'")
def export_(
    target: Annotated[Path, typer.Argument(help="directory: empty, new, or with an earlier bundle")],
    patterns: Annotated[list[str] | None, typer.Argument(help="repositories, such as 'prod/*' [default: all]")] = None,
    data: Data = Path("data"),
) -> None:
    """Write repositories to a bundle, for a site without a network. The instance may be running. The bundle is signed
    if CONCORD_CLUSTER_KEY is set."""
    done = export_bundle(data, target, patterns or [], _keys())
    _show_moved(done)


@app.command(name="import", epilog="Example: concord import /media/bundle --data /var/lib/concord")
def import_(
    source: Annotated[Path, typer.Argument(help="bundle")],
    data: Data = Path("data"),
    reassert: Annotated[
        bool, typer.Option("--reassert", help="assert anew what was deleted since, as if it were pushed again")
    ] = False,
) -> None:
    """Merge a bundle into a data directory on which no instance runs. What was deleted since the bundle was made stays
    deleted, and is listed."""
    from registry.runtime.sockets import locked

    with locked(data):
        done = import_bundle(source, data, _keys(), reassert)
    _show_moved(done)
    if reassert:
        show("brought back, since they had been deleted", done.deleted)
    else:
        show("deleted here since the bundle was made, and still deleted (--reassert brings them back)", done.deleted)
    show("tags of the bundle that point elsewhere here, and go on doing so", done.moved)
    show("contents that are neither in the bundle nor here; another instance has to have them", done.lacking)


def _show_moved(done: Moved) -> None:
    print(
        f"{done.repositories} repositories, {done.manifests} manifests, {done.contents} contents, "
        f"{done.size_bytes} bytes, {done.new} of them new"
    )
    for one in done.wrong:
        print(f"{one}: damaged, left out")
    if done.wrong:
        raise typer.Exit(1)


def _keys() -> list[ClusterKey]:
    return [ClusterKey(key.get_secret_value()) for key in load_config({}, None, check=False).cluster_key]


def _report(summary: str, missing: Sequence[str]) -> None:
    for one in missing:
        print(f"{one}: missing or damaged, left out")
    print(f"{summary}, {len(missing)} missing or damaged")
    raise typer.Exit(1 if missing else 0)

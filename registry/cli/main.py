"""The commands and their options."""

import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from registry import __version__
from registry.cli.backup import backup as run_backup
from registry.cli.backup import restore as run_restore
from registry.cli.bundle import Moved, export_bundle, import_bundle
from registry.cli.client import NoAnswer, ask, post
from registry.cli.compare import compare_instances
from registry.cli.demo import demo as run_demo
from registry.cli.replication import is_everywhere, replication_of
from registry.cli.replication import show as show_replication
from registry.cli.scrub import begin_scrub, wait_for_scrub
from registry.cli.status import show as show_status
from registry.cli.status import watch as watch_status
from registry.cli.verify import DataDirectory
from registry.cluster.keys import ClusterKey
from registry.config import load_config
from registry.errors import CannotStart

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Concord, an OCI container registry for many sites at once.",
    epilog="Exit status: 0 for success, 1 for a finding (differences, damage), 2 for an error.",
)
out = Console(width=None if sys.stdout.isatty() else 200)

Url = Annotated[str, typer.Argument(envvar="CONCORD_URL", help="address of an instance", show_default=True)]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for machines")]
LOCAL = "http://127.0.0.1:5000"
GC_S = 600.0


def run() -> None:
    """The entry point: errors that a person can act on are one line."""
    try:
        app()
    except (CannotStart, NoAnswer) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(f"concord: {message}", file=sys.stderr)
    sys.exit(2)


def _print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


@app.command(
    epilog="Example: concord serve --listen 0.0.0.0:5000 --data /var/lib/concord --advertise http://10.0.0.5:5000"
)
def serve(
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to serve on [default: 127.0.0.1:5000]")] = None,
    data: Annotated[Path | None, typer.Option(help="the data directory [default: data]")] = None,
    site: Annotated[str | None, typer.Option(help="the label of the place this instance runs at")] = None,
    redis: Annotated[
        list[str] | None, typer.Option(help="a Redis to gossip through; any one that works is enough")
    ] = None,
    advertise: Annotated[str | None, typer.Option(help="this instance's address inside its site")] = None,
    advertise_site: Annotated[
        str | None, typer.Option(help="an address behind which any instance of the site answers other sites")
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help="the address of another instance, to find it without Redis")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="a host name this registry goes by, for containerd's ?ns=")
    ] = None,
    sparse: Annotated[
        bool | None, typer.Option("--sparse/--no-sparse", help="accept manifests whose parts are missing")
    ] = None,
    hold_s: Annotated[
        float | None, typer.Option(help="how long a GET waits for a holder of content, in seconds [default: 20]")
    ] = None,
    copies: Annotated[
        str | None,
        typer.Option(help="how many instances hold content: a number, everywhere, on demand, or eu=2,us=1 [on demand]"),
    ] = None,
    acknowledge: Annotated[
        str | None,
        typer.Option(help="who must hold a push before it is answered: local, a number of holders, each-site [local]"),
    ] = None,
    disk_budget_gib: Annotated[
        float | None, typer.Option(help="evict content that others hold when there is more here, in GiB [no bound]")
    ] = None,
    front_end: Annotated[
        bool | None, typer.Option("--front-end/--no-front-end", help="keep no copies here, only fetch and serve")
    ] = None,
    listen_internal: Annotated[
        str | None, typer.Option(help="HOST:PORT for /_concord, /metrics, /healthz and /readyz alone")
    ] = None,
    drain_s: Annotated[
        float | None, typer.Option(help="seconds uploads and requests may go on after SIGTERM [default: 60]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="write log lines as text or json [default: text]")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="the least that is logged: debug, info, warning or error [default: info]")
    ] = None,
    log_requests: Annotated[
        bool | None, typer.Option("--log-requests/--no-log-requests", help="log every request of the OCI API")
    ] = None,
    check_after_s: Annotated[
        float | None,
        typer.Option(
            help="check content as it is read when its last check is so long ago, in seconds [default: 86400]"
        ),
    ] = None,
    scrub_mib_s: Annotated[
        float | None, typer.Option(help="MiB per second that the background check reads; 0 is off [default: 20]")
    ] = None,
    scrub_every_s: Annotated[
        float | None, typer.Option(help="how often the background check checks content, in seconds [default: 604800]")
    ] = None,
    scrub_at_start: Annotated[
        bool | None, typer.Option("--scrub-at-start/--no-scrub-at-start", help="check all content at the start")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="a TOML file with these settings")] = None,
) -> None:
    """Run an instance. Every option but --config can also be set as CONCORD_… in the environment; the secret that joins
    a cluster is CONCORD_CLUSTER_KEY."""
    from registry.cli.serve import serve as run_server  # the server's parts are not needed by the other commands

    given = {key: value for key, value in locals().items() if value not in (None, []) and key in _SETTINGS}
    run_server(load_config(given, config))


_SETTINGS = frozenset(
    {
        "listen",
        "data",
        "site",
        "redis",
        "advertise",
        "advertise_site",
        "peer",
        "name",
        "sparse",
        "hold_s",
        "copies",
        "acknowledge",
        "front_end",
        "disk_budget_gib",
        "listen_internal",
        "drain_s",
        "check_after_s",
        "scrub_mib_s",
        "scrub_every_s",
        "scrub_at_start",
        "log_format",
        "log_level",
        "log_requests",
    }
)


@app.command(epilog="Example: concord demo")
def demo(
    data: Annotated[Path | None, typer.Option(help="keep the data here [default: a directory that is removed]")] = None,
) -> None:
    """Run three instances at sites eu, us and ap on 127.0.0.1:5001 to 5003, with a Redis between them."""
    run_demo(data)


@app.command(epilog="Example: concord status http://10.0.0.5:5000")
def status(
    url: Url = LOCAL,
    json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="follow it until Ctrl-C")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="seconds between two looks, with --watch")] = 1.0,
) -> None:
    """Show an instance: what it has, whom it knows, and whether they agree."""
    if watch:
        return watch_status(out, url, interval)
    answer = ask(url, "/_concord/status")
    if json:
        return _print_json(answer)
    out.print(show_status(answer))


@app.command(epilog="Example: concord replication app/web:v1 http://10.0.0.5:5000")
def replication(
    image: Annotated[str, typer.Argument(metavar="REPOSITORY:TAG", help="the tag to look for")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Show at which instances a tag is: the tag itself, its manifest, and what that refers to.

    Exits 1 where an instance lacks tag or manifest, or does not answer. Blobs are where they were pushed, pulled or
    copied to.
    """
    answer = replication_of(image, url)
    if json:
        _print_json(answer)
    else:
        out.print(show_replication(answer))
    raise typer.Exit(0 if is_everywhere(answer) else 1)


@app.command(epilog="Example: concord digest --json http://10.0.0.5:5000")
def digest(
    url: Url = LOCAL,
    repository: Annotated[str | None, typer.Option(help="show one repository's digest and its tags' facts")] = None,
    content: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="sum up content: of repositories that begin so, or '' for all")
    ] = None,
    json: Json = False,
) -> None:
    """Show the state digest. Two instances with the same one have the same tags, manifests and links."""
    if content is not None:
        return _show_sums(ask(url, "/_concord/digest", {"content": content}, GC_S), json)
    answer = ask(url, "/_concord/digest", {"repository": repository} if repository is not None else None)
    if json:
        return _print_json(answer)
    if repository is None:
        return print(answer["root"])
    print(answer["digest"])
    for tag, facts in answer["tags"].items():
        for fact in facts:
            print(f"  {tag}  {fact['digest']}  pushed {_when(fact)}")


def _show_sums(answer: dict[str, Any], json: bool) -> None:
    """The two sums of the content. Exits 1 where something that is needed is not held."""
    if json:
        _print_json(answer)
    else:
        for name in ("needed", "held"):
            found = answer[name]
            print(f"{name:6}  {found['digest']}  {found['contents']} contents, {found['size_bytes']} bytes")
        for name in ("missing", "dangling"):
            for digest in answer[name]:
                print(f"  {name}  {digest}")
        print(f"{answer['missing_count']} missing here, {answer['dangling_count']} dangling")
    raise typer.Exit(1 if answer["missing_count"] else 0)


@app.command(epilog="Example: concord diff http://eu.example:5000 http://us.example:5000")
def diff(
    first: Annotated[str, typer.Argument(help="address of an instance")],
    second: Annotated[str, typer.Argument(help="address of another")],
    json: Json = False,
) -> None:
    """Name the repositories and tags in which two running instances differ, or say that they agree."""
    found = compare_instances(first, second)
    if json:
        _print_json(
            {
                "agree": not found.repositories,
                "roots": [found.first_root, found.second_root],
                "repositories": [
                    {"name": name, "tags": [tag._asdict() for tag in tags]} for name, tags in found.repositories
                ],
            }
        )
    elif not found.repositories:
        print(f"they agree: {found.first_root}")
    for name, tags in found.repositories if not json else []:
        print(name if tags else f"{name}: the same tags; references to manifests or blobs differ")
        for tag, one, other in tags:
            print(f"  {tag}: {one or 'not there'} | {other or 'not there'}")
    raise typer.Exit(1 if found.repositories else 0)


@app.command(epilog="Example: concord conflicts http://10.0.0.5:5000")
def conflicts(url: Url = LOCAL, json: Json = False) -> None:
    """List tags that several sites pushed unseen by each other.

    The others stay pullable by digest; push again to settle.
    """
    answer = ask(url, "/_concord/conflicts")
    if json:
        return _print_json(answer)
    for conflict in answer["conflicts"]:
        print(f"{conflict['repository']}:{conflict['tag']}")
        print(f"  wins   {conflict['winner']['digest']}  pushed {_when(conflict['winner'])}")
        for fact in conflict["others"]:
            print(f"  loses  {fact['digest']}  pushed {_when(fact)}")
    if not answer["conflicts"]:
        print("no conflicts")


@app.command(epilog="Example: concord gc --dry-run --untagged-older-than 30d http://10.0.0.5:5000")
def gc(
    url: Url = LOCAL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done, and why")] = False,
    untagged_older_than: Annotated[
        str | None, typer.Option(help="also delete manifests without a tag: an age such as 30d, 12h or 0s")
    ] = None,
    json: Json = False,
) -> None:
    """Remove content from an instance that no manifest names, as it is also done every hour."""
    question: dict[str, Any] = {"dry_run": dry_run}
    if untagged_older_than is not None:
        question["untagged_older_than_s"] = _age_s(untagged_older_than)
    answer = post(url, "/_concord/gc", question, GC_S)
    if json:
        return _print_json(answer)
    for repository, digests in answer["untagged"].items():
        for digest in digests:
            print(f"{digest}  {'would be ' if dry_run else ''}deleted from {repository}: it has no tag")
    for one in answer["decisions"]:
        print(f"{one['digest']}  {one['size']} bytes  {'removed' if one['removed'] else 'kept'}: {one['why']}")
    if answer["blocked"]:
        print(f"nothing can be removed now: {answer['blocked']}")
    removed, size, bodies = answer["removed"], answer["removed_bytes"], answer["bodies"]
    print(f"{removed} contents removed, {size} bytes, {bodies} manifests forgotten")


@app.command(epilog="Example: concord forget http://10.0.0.5:5000 3f2a91")
def forget(
    url: Annotated[str, typer.Argument(help="address of an instance")],
    instance: Annotated[str, typer.Argument(help="the id of the one that is gone, or a beginning of it")],
) -> None:
    """Say that an instance is gone for good, so that nobody waits for it any more.

    This cannot be undone. One that comes back all the same goes on under another id, with all it has.
    """
    answer = post(url, "/_concord/forget", {"instance": instance})
    print(f"{answer['forgotten']} is forgotten")


@app.command(epilog="Example: concord leave http://10.0.0.5:5000")
def leave(url: Url = LOCAL) -> None:
    """Have an instance leave for good: it hands over what only it holds, is forgotten, and ends."""
    answer = post(url, "/_concord/leave", {})
    while not answer["left"]:
        print(f"{answer['handed_over']} contents handed over, {answer['held_by_nobody_else']} to go")
        time.sleep(2)
        try:
            answer = ask(url, "/_concord/leave")
        except NoAnswer:
            break
    print("it has left")


def _age_s(text: str) -> float:
    """Seconds. Raises BadParameter."""
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no age: a number and one of s, m, h, d, w")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]


def _when(fact: dict[str, Any]) -> str:
    """When and where a tag was pushed, as far as that is known."""
    at = datetime.fromtimestamp(fact["time_ms"] / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    return f"{at} UTC at {fact['site'] or 'instance ' + (fact['instance'] or 'unknown')[:12]}"


_CHECKING = (TextColumn("checking"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


@app.command(epilog="Example: concord verify --data /var/lib/concord")
def verify(
    data: Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="the data directory")] = Path("data"),
    json: Json = False,
) -> None:
    """Hash all content again and compare it with its digests. The instance may be running."""
    directory = DataDirectory(data)
    checked, damaged = 0, []
    with Progress(*_CHECKING, console=Console(stderr=True), disable=json) as progress:
        task = progress.add_task("checking", total=directory.total_bytes)
        for one in directory.check():
            checked += 1
            progress.advance(task, one.size)
            if one.problem is not None:
                damaged.append({"digest": one.digest, "problem": one.problem})
    if json:
        _print_json({"checked": checked, "bytes": directory.total_bytes, "damaged": damaged})
    else:
        for entry in damaged:
            print(f"{entry['digest']}: {entry['problem']}")
        print(f"{checked} contents, {directory.total_bytes} bytes, {len(damaged)} damaged")
    raise typer.Exit(1 if damaged else 0)


Data = Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="the data directory")]


@app.command(epilog="Example: concord backup --data /var/lib/concord /backup/concord")
def backup(
    target: Annotated[Path, typer.Argument(help="a directory: empty, new, or with an earlier backup")],
    data: Data = Path("data"),
    copy: Annotated[bool, typer.Option("--copy", help="copy content, also where it could be linked")] = False,
) -> None:
    """Make a backup, or bring one up to date. The instance may be running.

    Content is linked where the file system can, and else copied once.
    """
    done = run_backup(data, target, copy)
    _report(f"{done.contents} contents, {done.size_bytes} bytes, {done.new} of them new", done.missing)


@app.command(epilog="Example: concord restore /backup/concord --data /var/lib/concord")
def restore(
    source: Annotated[Path, typer.Argument(help="a backup")],
    data: Data = Path("data"),
) -> None:
    """Make a data directory of a backup, with all content checked. It is another instance: start it beside the others,
    and forget the one that is gone."""
    done = run_restore(source, data)
    _report(f"{done.contents} contents, {done.size_bytes} bytes", done.missing)


@app.command(epilog="Example: concord rebuild --data /var/lib/concord")
def rebuild(data: Data = Path("data")) -> None:
    """Make a new catalog where it is lost or damaged, from the content files; tags and manifests come from the other
    instances when this one is started."""
    from registry.cli.rebuild import rebuild as run_rebuild
    from registry.cli.serve import locked

    with locked(data):
        done = run_rebuild(data)
    if done.aside is not None:
        print(f"the catalog that was there is {done.aside}")
    _report(f"{done.contents} contents, {done.size_bytes} bytes", done.wrong)


@app.command(name="export", epilog="Example: concord export --data /var/lib/concord /media/bundle 'prod/*'")
def export_(
    target: Annotated[Path, typer.Argument(help="a directory: empty, new, or with an earlier bundle")],
    patterns: Annotated[list[str] | None, typer.Argument(help="repositories, such as 'prod/*' [default: all]")] = None,
    data: Data = Path("data"),
) -> None:
    """Write repositories to a bundle, for a site without a network. The instance may be running. With
    CONCORD_CLUSTER_KEY set the bundle is signed."""
    done = export_bundle(data, target, patterns or [], _keys())
    _show_moved(done)


@app.command(name="import", epilog="Example: concord import /media/bundle --data /var/lib/concord")
def import_(
    source: Annotated[Path, typer.Argument(help="a bundle")],
    data: Data = Path("data"),
) -> None:
    """Take a bundle into a data directory that no instance runs on. It merges with what is there."""
    from registry.cli.serve import locked

    with locked(data):
        done = import_bundle(source, data, _keys())
    _show_moved(done)


def _show_moved(done: Moved) -> None:
    print(
        f"{done.repositories} repositories, {done.manifests} manifests, {done.contents} contents, "
        f"{done.size_bytes} bytes, {done.new} of them new"
    )


def _keys() -> list[ClusterKey]:
    return [ClusterKey(key.get_secret_value()) for key in load_config({}, None, check=False).cluster_key]


def _report(summary: str, missing: Sequence[str]) -> None:
    for one in missing:
        print(f"{one}: missing or damaged, left out")
    print(f"{summary}, {len(missing)} missing or damaged")
    raise typer.Exit(1 if missing else 0)


@app.command(epilog="Example: concord scrub --wait http://10.0.0.5:5000")
def scrub(
    url: Url = LOCAL,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the end, and say what was found")] = False,
    json: Json = False,
) -> None:
    """Let a running instance check all its content now, and fetch again what is damaged."""
    answer = begin_scrub(url)
    if wait:
        with Progress(*_CHECKING, console=Console(stderr=True), disable=json) as progress:
            task = progress.add_task("checking", total=answer["running"]["total_bytes"])
            answer = wait_for_scrub(url, answer, lambda done_bytes: progress.update(task, completed=done_bytes))
    if json:
        _print_json(answer)
    elif not wait:
        print("begun" if answer["begun"] else "it is under way already")
    else:
        found = answer["last"]
        print(f"{found['contents']} contents, {found['bytes']} bytes", end=", ")
        print(f"{found['damaged']} damaged, {found['repaired']} repaired")
    raise typer.Exit(1 if wait and answer["last"]["damaged"] else 0)


def _show_version(value: bool) -> None:
    if value:
        print(f"concord {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Options of all commands."""


__all__: list[Any] = ["app", "run"]

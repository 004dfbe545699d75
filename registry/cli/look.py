"""Commands that look at running instances."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from registry.cli.client import ask
from registry.cli.commands import LOCAL, LONG_TIMEOUT_S, Json, Url, app, asks_instances, out, print_json
from registry.cli.compare import compare_instances
from registry.cli.replication import is_everywhere, replication_of
from registry.cli.replication import show as show_replication
from registry.cli.status import show as show_status
from registry.cli.status import watch as watch_status
from registry.units import to_s


@app.command(epilog="Example: concord status http://10.0.0.5:5000")
@asks_instances
def status(
    url: Url = LOCAL,
    json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="repeat until Ctrl-C")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="seconds between two requests of --watch")] = 1.0,
) -> None:
    """Show the state of an instance, its members, and whether they agree."""
    if watch:
        return watch_status(out, url, interval)
    answer = ask(url, "/_concord/status")
    if json:
        return print_json(answer)
    out.print(show_status(answer))


@app.command(epilog="Example: concord replication app/web:v1 http://10.0.0.5:5000")
@asks_instances
def replication(
    image: Annotated[str, typer.Argument(metavar="REPOSITORY:TAG", help="tag to look for")],
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Show which instances have a tag, its manifest, and the content that the manifest refers to.

    The exit status is 1 if an instance lacks the tag or its manifest, or does not answer. Blobs are where they were
    pushed, pulled or copied to.
    """
    answer = replication_of(image, url)
    if json:
        print_json(answer)
    else:
        out.print(show_replication(answer))
    raise typer.Exit(0 if is_everywhere(answer) else 1)


@app.command(epilog="Example: concord digest --json http://10.0.0.5:5000")
@asks_instances
def digest(
    url: Url = LOCAL,
    repository: Annotated[
        str | None, typer.Option(help="show the digest of one repository and the facts of its tags")
    ] = None,
    content: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="sum up the content of repositories with this prefix; '' for all"),
    ] = None,
    json: Json = False,
) -> None:
    """Show the state digest. Two instances with equal digests have the same tags, manifests and links.

    With --content, the exit status is 1 if needed content is not held, and 2 if no repository has the prefix.
    """
    if content is not None:
        return _show_sums(ask(url, "/_concord/digest", {"content": content}, LONG_TIMEOUT_S), json)
    answer = ask(url, "/_concord/digest", {"repository": repository} if repository is not None else None)
    if json:
        return print_json(answer)
    if repository is None:
        return print(answer["root"])
    print(answer["digest"])
    for tag, facts in answer["tags"].items():
        for fact in facts:
            print(f"  {tag}  {fact['digest']}  pushed {_when(fact)}")


def _show_sums(answer: dict[str, Any], json: bool) -> None:
    """The two sums of the content. Exits 1 where something that is needed is not held."""
    if json:
        print_json(answer)
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
@asks_instances
def diff(
    first: Annotated[str, typer.Argument(help="URL of an instance")],
    second: Annotated[str, typer.Argument(help="URL of another instance")],
    json: Json = False,
) -> None:
    """List the repositories and tags in which two running instances differ, or say that they agree."""
    found = compare_instances(first, second)
    if json:
        print_json(
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
@asks_instances
def conflicts(url: Url = LOCAL, json: Json = False) -> None:
    """List conflicts: tags that several sites pushed concurrently.

    The pushes that lost stay pullable by digest. Push the tag again to resolve a conflict.
    """
    answer = ask(url, "/_concord/conflicts")
    if json:
        return print_json(answer)
    for conflict in answer["conflicts"]:
        print(f"{conflict['repository']}:{conflict['tag']}")
        print(f"  wins   {conflict['winner']['digest']}  pushed {_when(conflict['winner'])}")
        for fact in conflict["others"]:
            print(f"  loses  {fact['digest']}  pushed {_when(fact)}")
    if not answer["conflicts"]:
        print("no conflicts")


def _when(fact: dict[str, Any]) -> str:
    """Describe when and where a tag was pushed, as far as that is known."""
    at = datetime.fromtimestamp(to_s(fact["time_ms"]), UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    name = f"{fact['name']}, " if fact["name"] else ""
    return f"{at} UTC at {name}{fact['site'] or 'instance ' + (fact['instance'] or 'unknown')[:12]}"

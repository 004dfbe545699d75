"""Commands that have running instances do something."""

import re
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from registry.cli.client import NoAnswer, act, ask
from registry.cli.commands import CHECKING, LOCAL, LONG_S, Json, KeyFile, Url, app, asks_instances, print_json
from registry.cli.scrub import begin_scrub, wait_for_scrub
from registry.cli.signing import cluster_secrets
from registry.cli.standing import leaving


@app.command(epilog="Example: concord scrub --wait http://10.0.0.5:5000")
@asks_instances
def scrub(
    url: Url = LOCAL,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the end, and say what was found")] = False,
    json: Json = False,
    config: KeyFile = None,
) -> None:
    """Let a running instance check all its content now, and fetch again what is damaged."""
    answer = begin_scrub(url, cluster_secrets(config))
    if wait:
        with Progress(*CHECKING, console=Console(stderr=True), disable=json) as progress:
            task = progress.add_task("checking", total=answer["running"]["total_bytes"])
            answer = wait_for_scrub(url, answer, lambda done_bytes: progress.update(task, completed=done_bytes))
    if json:
        print_json(answer)
    elif not wait:
        print("begun" if answer["begun"] else "it is under way already")
    else:
        found = answer["last"]
        print(f"{found['contents']} contents, {found['bytes']} bytes", end=", ")
        print(f"{found['damaged']} damaged, {found['repaired']} repaired")
    raise typer.Exit(1 if wait and answer["last"]["damaged"] else 0)


@app.command(epilog="Example: concord gc --dry-run --untagged-older-than 30d http://10.0.0.5:5000")
@asks_instances
def gc(
    url: Url = LOCAL,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done, and why")] = False,
    untagged_older_than: Annotated[
        str | None, typer.Option(help="also delete manifests without a tag: an age such as 30d, 12h or 0s")
    ] = None,
    json: Json = False,
    config: KeyFile = None,
) -> None:
    """Remove content from an instance that no manifest names, as it also does by itself (--gc-every-s).

    What a manifest names is never looked at. The rest is kept for a day (--gc-grace-s), and as long as an instance
    relies on it; all instances are asked, so each has to answer.
    """
    question: dict[str, Any] = {"dry_run": dry_run}
    if untagged_older_than is not None:
        question["untagged_older_than_s"] = _age_s(untagged_older_than)
    answer = act(url, "/_concord/gc", question, cluster_secrets(config), LONG_S)
    if json:
        return print_json(answer)
    _show_collection(answer, url)


def _show_collection(answer: dict[str, Any], url: str) -> None:
    """Each content with what becomes of it and why; then what stands against more, and the sums."""
    done = "would be " if answer["dry_run"] else ""
    for repository, digests in answer["untagged"].items():
        for digest in digests:
            print(f"{digest}  {done}deleted from {repository}: it has no tag")
    for one in answer["decisions"]:
        what = "removed" if one["removed"] else "would be removed" if one["would_be_removed"] else "kept"
        why = "nothing can be removed now, see the end" if one["why"] == answer["blocked"] else one["why"]
        print(f"{one['digest']}  {one['size']} bytes  {what}: {why}")
    if answer["decisions_count"] > len(answer["decisions"]):
        print(f"and {answer['decisions_count'] - len(answer['decisions'])} more")
    if answer["blocked"]:
        print(f"nothing can be removed now: {answer['blocked'].replace('concord forget URL', f'concord forget {url}')}")
    count, size = (answer[f"{'would_be_' if answer['dry_run'] else ''}removed{kind}"] for kind in ("", "_bytes"))
    kept = answer["decisions_count"] - count
    print(
        f"{count} contents {done}removed, {size} bytes; {kept} that no manifest names {done}kept; "
        f"{answer['bodies']} manifests that no repository has any more {done}removed"
    )
    if answer["dry_run"]:
        print("nothing was changed: this was a dry run")


@app.command(epilog="Example: concord forget http://10.0.0.5:5000 3f2a91c4")
@asks_instances
def forget(
    url: Annotated[str, typer.Argument(help="address of an instance")],
    instance: Annotated[str, typer.Argument(help="name or id of the one that is gone, or 8 digits or more of the id")],
    config: KeyFile = None,
) -> None:
    """Say that an instance is gone for good, so that nobody waits for it any more.

    This cannot be undone. One that comes back all the same goes on under another id, with all it has.
    """
    answer = act(url, "/_concord/forget", {"instance": instance}, cluster_secrets(config))
    print(f"{answer['forgotten']} is forgotten")


@app.command(epilog="Example: concord leave http://10.0.0.5:5000")
@asks_instances
def leave(url: Url = LOCAL, config: KeyFile = None) -> None:
    """Have an instance leave for good: it hands over what only it holds, is forgotten, and ends."""
    answer = act(url, "/_concord/leave", {}, cluster_secrets(config))
    shown = ""
    while not answer["left"]:
        now = "\n".join(leaving(answer))
        if now != shown:
            print(now, flush=True)
        shown = now
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

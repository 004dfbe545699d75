"""Commands that have running instances do something."""

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from registry.cli.client import NoAnswer, act, ask
from registry.cli.commands import (
    CHECKING,
    LOCAL,
    LONG_TIMEOUT_S,
    Json,
    KeyFile,
    Url,
    age_s,
    app,
    asks_instances,
    print_json,
)
from registry.cli.scrub import begin_scrub, wait_for_scrub
from registry.cli.signing import cluster_secrets
from registry.cli.status_text import leaving
from registry.cluster.placement.collection_reasons import Code, Reason


@app.command(epilog="Example: concord scrub --wait http://10.0.0.5:5000")
@asks_instances
def scrub(
    url: Url = LOCAL,
    wait: Annotated[bool, typer.Option("--wait", help="wait until it has ended, and show the result")] = False,
    json: Json = False,
    config: KeyFile = None,
) -> None:
    """Make a running instance verify all its content now, and repair what is corrupt from other holders."""
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
        print(f"{found['corrupt']} corrupt, {found['repaired']} repaired")
    raise typer.Exit(1 if wait and answer["last"]["corrupt"] else 0)


@app.command(epilog="Example: concord gc --dry-run --untagged-older-than 30d http://10.0.0.5:5000")
@asks_instances
def gc(
    url: Url = LOCAL,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would be removed, and why; remove nothing")
    ] = False,
    untagged_older_than: Annotated[
        str | None, typer.Option(help="also delete untagged manifests of this age, such as 30d, 12h or 0s")
    ] = None,
    json: Json = False,
    config: KeyFile = None,
) -> None:
    """Collect garbage at an instance now, as it also does regularly (--gc-interval-s).

    Unreferenced content is removed after its grace period (--gc-grace-s), and once no instance relies on it. Every
    member is asked, so each has to answer.
    """
    request: dict[str, Any] = {"dry_run": dry_run}
    if untagged_older_than is not None:
        request["untagged_older_than_s"] = age_s(untagged_older_than)
    answer = act(url, "/_concord/gc", request, cluster_secrets(config), LONG_TIMEOUT_S)
    if json:
        return print_json(answer)
    _show_collection(answer, url)


def _show_collection(answer: dict[str, Any], url: str) -> None:
    """Print each content with its outcome and the reason; then why no more can be removed, and the sums."""
    done = "would be " if answer["dry_run"] else ""
    for repository, digests in answer["untagged"].items():
        for digest in digests:
            print(f"{digest}  {done}deleted from {repository}: it has no tag")
    for one in answer["decisions"]:
        what = "removed" if one["removed"] else "would be removed" if one["would_be_removed"] else "kept"
        reason = Reason(one["reason"], one["detail"])
        why = f"{reason.describe(url)}, see the end" if reason.code == Code.BLOCKED else reason.describe(url)
        print(f"{one['digest']}  {one['size']} bytes  {what}: {why}")
    if answer["decisions_count"] > len(answer["decisions"]):
        print(f"and {answer['decisions_count'] - len(answer['decisions'])} more")
    if answer["blocked"]:
        blocked = Reason(answer["blocked"]["reason"], answer["blocked"]["detail"])
        print(f"nothing can be removed now: {blocked.describe(url)}")
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
    url: Annotated[str, typer.Argument(help="URL of an instance")],
    instance: Annotated[str, typer.Argument(help="name or id of the member to remove, or 8 digits or more of the id")],
    config: KeyFile = None,
) -> None:
    """Remove a member that is gone for good, so that no instance waits for it.

    This cannot be undone. A removed instance that returns continues under another id, with all its content.
    """
    answer = act(url, "/_concord/forget", {"instance": instance}, cluster_secrets(config))
    print(f"{answer['removed']} is removed")


@app.command(epilog="Example: concord leave http://10.0.0.5:5000")
@asks_instances
def leave(url: Url = LOCAL, config: KeyFile = None) -> None:
    """Decommission an instance: it hands over replicas that only it holds, is removed from the cluster, and ends."""
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

"""Commands about rights: grants and revocations, what gives a right, and whether access control is enforced."""

from pathlib import Path
from typing import Annotated, Any

import typer

from registry.cli.access_offline import recover
from registry.cli.accounts import Distrust, Name, Stdin, ask_access, read_password, show_void
from registry.cli.commands import (
    LOCAL,
    Json,
    KeyFile,
    UrlOption,
    app,
    asks_instances,
    expiry_ms,
    expiry_text,
    group_of_commands,
    print_json,
)
from registry.cli.confirmations import wait_for_members

Subject = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="name of an account, group:NAME, authenticated or anonymous")
]
Repositories = Annotated[
    str, typer.Argument(metavar="REPOSITORIES", help="name or pattern; * stands for any characters, slashes too")
]


@app.command(epilog="Example: concord grant alice 'team/*' pull,push --url http://10.0.0.5:5000")
@asks_instances
def grant(
    subject: Subject,
    repositories: Repositories,
    rights: Annotated[str, typer.Argument(metavar="RIGHTS", help="pull, push, delete, admin, separated by commas")],
    expires: Annotated[str | None, typer.Option(help="age at which it expires, such as 30d [default: never]")] = None,
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """Grant rights on repositories. Grants add up; admin implies the other rights."""
    listed = [right.strip() for right in rights.split(",")]
    request = {"subject": subject, "repositories": repositories, "rights": listed, "expires_ms": expiry_ms(expires)}
    answer = ask_access(url, "grant", request, config)
    print(f"{subject} may {', '.join(listed)} at {repositories}: grant {answer['id']}")


@app.command(epilog="Example: concord revoke alice 'team/*' --url http://10.0.0.5:5000")
@asks_instances
def revoke(
    subject: Subject,
    repositories: Repositories,
    distrust: Distrust = False,
    wait: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0, help="wait so long until all reachable instances have confirmed it"),
    ] = None,
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """End the grants of a subject at these repositories and at narrower patterns, also those that another site makes
    meanwhile.

    The exit status is 1 if the subject still has rights there, by a group or a wider pattern: each way is listed. With
    --wait it is 1, too, if instances have not confirmed the revocation: each is listed.
    """
    request = {"subject": subject, "repositories": repositories, "distrust": distrust}
    answer = ask_access(url, "revoke", request, config)
    print(f"the grants of {subject} at {repositories} and narrower patterns have ended")
    show_void(answer)
    has_ended = not answer["remaining"] and not answer["wider"]
    if not has_ended:
        print("these ways remain:")
        for way in answer["remaining"]:
            print(f"  {_way(way)}")
        _show_wider(answer)
    has_all = wait is None or wait_for_members(url, wait, config)
    raise typer.Exit(0 if has_all and has_ended else 1)


access = group_of_commands("access", "What is in force, and enforcing it.")


@access.command(name="list", epilog="Example: concord access list --url http://10.0.0.5:5000")
@asks_instances
def access_list(url: UrlOption = LOCAL, json: Json = False, config: KeyFile = None) -> None:
    """List the grants, the administrators, and whether access control is enforced."""
    answer = ask_access(url, "list", {}, config)
    if json:
        return print_json(answer)
    print("access control is enforced" if answer["enforced"] else "access control is not enforced")
    if answer["restored"]:
        print(
            "this directory was restored: no credential counts before it has met a member (or concord access recover)"
        )
    if "accounts" in answer:  # an administrator of a pattern sees only the grants within it
        print(f"{answer['accounts']} accounts, administrators: {', '.join(answer['administrators']) or 'none'}")
    for way in answer["grants"]:
        print(_way(way))


@access.command(name="explain", epilog="Example: concord access explain alice team/app --url http://10.0.0.5:5000")
@asks_instances
def access_explain(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="name of an account, or anonymous")],
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="name of a repository")],
    url: UrlOption = LOCAL,
    json: Json = False,
    config: KeyFile = None,
) -> None:
    """Explain the rights of an account at a repository: which grants give them.

    The exit status is 1 if it has none.
    """
    answer = ask_access(url, "explain", {"account": account, "repository": repository}, config)
    if json:
        print_json(answer)
    else:
        _show_explanation(answer)
    raise typer.Exit(0 if answer["rights"] else 1)


@access.command(name="conflicts", epilog="Example: concord access conflicts --url http://10.0.0.5:5000")
@asks_instances
def access_conflicts(url: UrlOption = LOCAL, json: Json = False, config: KeyFile = None) -> None:
    """List what the conflict rules have left out: void facts, renamed accounts, and passwords that lost."""
    answer = ask_access(url, "conflicts", {}, config)
    if json:
        return print_json(answer)
    for one in answer["conflicts"]:
        said = ", ".join(f"{name} {_text(value)}" for name, value in one["said"].items() if value not in (None, False))
        shown = f", shown as {one['shown_as']}" if one["conflict"] == "renamed" else ""
        print(f"{one['id']}  {one['conflict']}: {one['kind']} by {one['by']}: {said}{shown}")
    if not answer["conflicts"]:
        print("no conflicts")


@access.command(name="approve", epilog="Example: concord access approve 3f2a91c4d5e6f708 --url http://10.0.0.5:5000")
@asks_instances
def access_approve(
    id: Annotated[str, typer.Argument(metavar="ID", help="id of a void fact, as concord access conflicts shows it")],
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """Say again what a void fact of a removed administrator said."""
    ask_access(url, "approve", {"id": id}, config)
    print(f"{id} is approved")


@access.command(name="enforce", epilog="Example: concord access enforce --url http://10.0.0.5:5000")
@asks_instances
def access_enforce(
    force: Annotated[bool, typer.Option("--force", help="also while members are too old to enforce it")] = False,
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """Have the whole cluster enforce access control. This cannot be undone."""
    ask_access(url, "enforce", {"force": force}, config)
    print("access control is enforced")


@access.command(name="recover", epilog="Example: concord access recover root --data /var/lib/concord")
def access_recover(
    name: Name,
    data: Annotated[Path, typer.Option(envvar="CONCORD_DATA", help="data directory on which no instance runs")],
    password_stdin: Stdin = False,
) -> None:
    """Make an administrator in a data directory where there is none any more, or after a restore.

    An account of that name becomes an administrator again, with the new password.
    """
    print(f"{name} is an administrator, account {recover(data, name, read_password(password_stdin))}")


def _way(way: dict[str, Any]) -> str:
    expiry = "" if way["expires_ms"] is None else f", {expiry_text(way['expires_ms'])}"
    return f"{way['subject']}  {way['repositories']}  {','.join(way['rights'])}{expiry}  (grant {way['id']})"


def _show_explanation(answer: dict[str, Any]) -> None:
    rights = [
        right if until is None else f"{right} ({expiry_text(until)})" for right, until in answer["rights"].items()
    ]
    who, where = answer["account"], answer["repository"]
    print(f"{who} may {', '.join(rights)} at {where}" if rights else f"{who} may do nothing at {where}")
    if answer["blocked"]:
        print(f"{who} is blocked")
    for way in answer["ways"]:
        print(f"  {'expired: ' if way['expired'] else ''}{_way(way)}")
    _show_wider(answer)
    if not answer["enforced"]:
        print("access control is not enforced: everyone may do everything")


def _show_wider(answer: dict[str, Any]) -> None:
    """Say how many grants an administrator of a pattern is not shown."""
    if answer["wider"]:
        print(f"  {answer['wider']} grants of wider or other patterns, which administrators of these see")


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

"""Commands about accounts: of persons and robots, their keys, and groups."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from registry.cli.access_offline import create_administrator
from registry.cli.client import act
from registry.cli.commands import (
    LOCAL,
    Json,
    KeyFile,
    UrlOption,
    asks_instances,
    expiry_ms,
    expiry_text,
    group_of_commands,
    print_json,
    time_text,
)
from registry.cli.signing import cluster_secrets
from registry.errors import CannotStart

API = "/_concord/access/"
account = group_of_commands("account", "Accounts of persons.")
robot = group_of_commands("robot", "Accounts of programs.")
key = group_of_commands("key", "Keys by which robots sign in.")
group = group_of_commands("group", "Groups of accounts.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="name of the account")]
Stdin = Annotated[bool, typer.Option("--password-stdin", help="read the password from standard input")]
Distrust = Annotated[
    bool, typer.Option("--distrust", help="void also all that the account has granted as an administrator")
]


def ask_access(url: str, path: str, request: dict[str, Any], config: Path | None) -> Any:
    """Send a request about access control. Raises NoAnswer."""
    return act(url, API + path, request, cluster_secrets(config))


def read_password(from_stdin: bool) -> str:
    """Return a password that is typed twice, or the first line of standard input."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@account.command(name="create", epilog="Example: concord account create alice --url http://10.0.0.5:5000")
@asks_instances
def account_create(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="make it an administrator of everything")] = False,
    password_stdin: Stdin = False,
    data: Annotated[
        Path | None,
        typer.Option(help="data directory on which no instance runs, to make the first administrator there"),
    ] = None,
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """Make an account with a password.

    The first administrator is made with --admin, at a running instance or with --data in its data directory.
    """
    if data is not None and not admin:
        raise CannotStart("--data is for the first administrator: it needs --admin")
    password = read_password(password_stdin)
    if data is not None:
        print(f"{name} is an administrator, account {create_administrator(data, name, password)}")
        return
    answer = ask_access(url, "account/create", {"name": name, "password": password, "admin": admin}, config)
    print(f"{name} is {'an administrator, ' if admin else ''}account {answer['id']}")


@account.command(name="remove", epilog="Example: concord account remove alice --url http://10.0.0.5:5000")
@asks_instances
def account_remove(name: Name, distrust: Distrust = False, url: UrlOption = LOCAL, config: KeyFile = None) -> None:
    """Remove an account for good, with its credentials and grants. An account that is made again under the name is
    another one."""
    answer = ask_access(url, "account/remove", {"name": name, "distrust": distrust}, config)
    print(f"{name} is removed")
    show_void(answer)


@account.command(name="list", epilog="Example: concord account list --url http://10.0.0.5:5000")
@asks_instances
def account_list(url: UrlOption = LOCAL, json: Json = False, config: KeyFile = None) -> None:
    """List accounts, of persons and robots."""
    answer = ask_access(url, "account/list", {}, config)
    if json:
        return print_json(answer)
    for one in answer["accounts"]:
        groups = f"  groups {', '.join(one['groups'])}" if one["groups"] else ""
        print(f"{one['name']}  {one['kind']}{'  blocked' if one['blocked'] else ''}{groups}")
        for binding in one["bindings"]:
            print(f"  {_binding_text(binding)}")


@account.command(name="password", epilog="Example: concord account password alice --url http://10.0.0.5:5000")
@asks_instances
def account_password(name: Name, password_stdin: Stdin = False, url: UrlOption = LOCAL, config: KeyFile = None) -> None:
    """Replace the password of an account. Tokens that the former one gave end."""
    ask_access(url, "account/password", {"name": name, "password": read_password(password_stdin)}, config)
    print(f"{name} has a new password")


@account.command(name="block", epilog="Example: concord account block alice --url http://10.0.0.5:5000")
@asks_instances
def account_block(name: Name, distrust: Distrust = False, url: UrlOption = LOCAL, config: KeyFile = None) -> None:
    """Take all rights from an account until it is unblocked. A block beats every grant."""
    answer = ask_access(url, "account/block", {"name": name, "distrust": distrust}, config)
    print(f"{name} is blocked")
    show_void(answer)


@account.command(name="unblock", epilog="Example: concord account unblock alice --url http://10.0.0.5:5000")
@asks_instances
def account_unblock(name: Name, url: UrlOption = LOCAL, config: KeyFile = None) -> None:
    """Give a blocked account its rights back. A block that another site makes meanwhile stays."""
    ask_access(url, "account/unblock", {"name": name}, config)
    print(f"{name} is not blocked any more")


@account.command(
    name="bind",
    epilog="Example: concord account bind ci --issuer https://token.actions.githubusercontent.com "
    "--claim repository_id=123456 --claim ref=refs/heads/main --url http://10.0.0.5:5000",
)
@asks_instances
def account_bind(
    name: Name,
    issuer: Annotated[str, typer.Option(help="URL of the identity provider, exactly as its tokens state it")],
    claim: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="a claim that a token must have; several add")],
    expires: Annotated[str | None, typer.Option(help="age at which it expires, such as 90d [default: never]")] = None,
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """Let ID tokens of an identity provider sign in as an account, such as those of GitHub Actions, GitLab and
    Kubernetes. Values are compared exactly."""
    request = {"account": name, "issuer": issuer, "claims": _claims(claim), "expires_ms": expiry_ms(expires)}
    answer = ask_access(url, "binding/create", request, config)
    print(f"{name} is bound to {issuer}: binding {answer['id']}")


@account.command(name="unbind", epilog="Example: concord account unbind 3f2a91c4d5e6f708 --url http://10.0.0.5:5000")
@asks_instances
def account_unbind(
    id: Annotated[str, typer.Argument(metavar="ID", help="id of the binding, as concord account bindings shows it")],
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """End a binding for good. Tokens that it gave end, too."""
    ask_access(url, "binding/revoke", {"id": id}, config)
    print(f"{id} is revoked")


@account.command(name="bindings", epilog="Example: concord account bindings --url http://10.0.0.5:5000")
@asks_instances
def account_bindings(url: UrlOption = LOCAL, json: Json = False, config: KeyFile = None) -> None:
    """List the bindings of all accounts to identity providers."""
    answer = ask_access(url, "binding/list", {}, config)
    if json:
        return print_json(answer)
    for one in answer["bindings"]:
        print(f"{one['account']}  {_binding_text(one)}")


@robot.command(name="create", epilog="Example: concord robot create ci --url http://10.0.0.5:5000")
@asks_instances
def robot_create(name: Name, url: UrlOption = LOCAL, config: KeyFile = None) -> None:
    """Make an account of a program. It signs in by keys, see `concord key create`; an account of either kind is
    removed and blocked by `concord account`."""
    answer = ask_access(url, "robot/create", {"name": name}, config)
    print(f"{name} is robot {answer['id']}")


@key.command(name="create", epilog="Example: concord key create ci --expires 90d --url http://10.0.0.5:5000")
@asks_instances
def key_create(
    name: Name,
    expires: Annotated[str | None, typer.Option(help="age at which it expires, such as 90d [default: never]")] = None,
    url: UrlOption = LOCAL,
    json: Json = False,
    config: KeyFile = None,
) -> None:
    """Make a key for an account. It is shown once: only its hash is kept."""
    answer = ask_access(url, "key/create", {"account": name, "expires_ms": expiry_ms(expires)}, config)
    if json:
        return print_json(answer)
    print(f"key {answer['id']} of {name}:", file=sys.stderr)
    print(answer["key"])


@key.command(name="revoke", epilog="Example: concord key revoke 3f2a91c4d5e6f708 --url http://10.0.0.5:5000")
@asks_instances
def key_revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="id of the key")],
    url: UrlOption = LOCAL,
    config: KeyFile = None,
) -> None:
    """End a key for good. Tokens that it gave end, too."""
    ask_access(url, "key/revoke", {"id": id}, config)
    print(f"{id} is revoked")


@key.command(name="list", epilog="Example: concord key list ci --url http://10.0.0.5:5000")
@asks_instances
def key_list(name: Name, url: UrlOption = LOCAL, json: Json = False, config: KeyFile = None) -> None:
    """List the keys of an account."""
    answer = ask_access(url, "key/list", {"name": name}, config)
    if json:
        return print_json(answer)
    for one in answer["keys"]:
        used = "never used" if one["last_used_ms"] is None else f"used {time_text(one['last_used_ms'])}"
        print(f"{one['id']}  {one['kind']}  {expiry_text(one['expires_ms'])}  {used} at this instance")


Group = Annotated[str, typer.Argument(metavar="GROUP", help="name of the group")]


@group.command(name="add", epilog="Example: concord group add developers alice --url http://10.0.0.5:5000")
@asks_instances
def group_add(group: Group, name: Name, url: UrlOption = LOCAL, config: KeyFile = None) -> None:
    """Add an account to a group. A group exists by its members and grants."""
    ask_access(url, "group/add", {"group": group, "account": name}, config)
    print(f"{name} is in {group}")


@group.command(name="remove", epilog="Example: concord group remove developers alice --url http://10.0.0.5:5000")
@asks_instances
def group_remove(
    group: Group, name: Name, distrust: Distrust = False, url: UrlOption = LOCAL, config: KeyFile = None
) -> None:
    """Take an account out of a group."""
    answer = ask_access(url, "group/remove", {"group": group, "account": name, "distrust": distrust}, config)
    print(f"{name} is not in {group} any more")
    show_void(answer)


@group.command(name="list", epilog="Example: concord group list --url http://10.0.0.5:5000")
@asks_instances
def group_list(url: UrlOption = LOCAL, json: Json = False, config: KeyFile = None) -> None:
    """List groups and their members."""
    answer = ask_access(url, "group/list", {}, config)
    if json:
        return print_json(answer)
    for one in answer["groups"]:
        print(f"{one['name']}: {', '.join(one['members']) or 'no members'}")


def _claims(texts: list[str]) -> dict[str, str]:
    """Return claims by name. Raises BadParameter."""
    claims: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or name in claims:
            raise typer.BadParameter(f"invalid claim {text!r}: expected NAME=VALUE, and each name once")
        claims[name] = value
    return claims


def _binding_text(binding: dict[str, Any]) -> str:
    claims = " ".join(f"{name}={value}" for name, value in sorted(binding["claims"].items()))
    return f"{binding['id']}  {binding['issuer']}  {claims}  {expiry_text(binding['expires_ms'])}"


def show_void(answer: dict[str, Any]) -> None:
    """Say how many facts are void, where there are any."""
    if answer["void"]:
        print(f"{answer['void']} facts are void, since their authors were removed: concord access conflicts lists them")

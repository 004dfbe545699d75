"""Commands about the login that commands sign in with."""

from typing import Any

import typer

from registry.cli.client import Login, NoAnswer, ask
from registry.cli.commands import LOCAL, Json, Url, asks_instances, expiry_text, group_of_commands, print_json
from registry.errors import CannotStart

SELF = "/_concord/access/self"
login_commands = group_of_commands("login", "The login that commands sign in with.")


@login_commands.command(
    name="check", epilog="Example: concord login check http://10.0.0.5:5000 --login ~/.concord-login"
)
@asks_instances
def login_check(url: Url = LOCAL, json: Json = False) -> None:
    """Show which account a login is of, by which credential, until when, and what it may do.

    The exit status is 1 if the login does not count: if the secret is wrong, has expired or was revoked, or if the
    account is blocked or removed.
    """
    if Login.file is None:
        raise CannotStart("there is no login to check: --login FILE or CONCORD_LOGIN names one")
    try:
        answer = ask(url, SELF)
    except NoAnswer as error:
        if error.status != 401:
            raise
        print(f"the login does not count: {error}")
        raise typer.Exit(1) from None
    if json:
        return print_json(answer)
    _show(answer)


def _show(answer: dict[str, Any]) -> None:
    groups = f", in {', '.join(answer['groups'])}" if answer["groups"] else ""
    credential = answer["credential"]
    print(f"{answer['name']} ({answer['kind']} {answer['account']}){groups}")
    print(f"signed in by {credential['kind']} {credential['id']}, {expiry_text(credential['expires_ms'])}")
    for one in answer["grants"]:
        expiry = "" if one["expires_ms"] is None else f", {expiry_text(one['expires_ms'])}"
        print(f"  {one['repositories']}  {','.join(one['rights'])}{expiry}  (granted to {one['subject']})")
    if not answer["grants"]:
        print("  no rights")
    if not answer["enforced"]:
        print("access control is not enforced: everyone may do everything")

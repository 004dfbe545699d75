"""`/_concord/forget` and `/_concord/leave`: members that go for good."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from registry.cluster.membership.members import Member
from registry.errors import Unsupported
from registry.http.admin.actions import Outcome
from registry.http.admin.context import AdminContext, LeavingContext
from registry.http.admin.status_fields import remaining
from registry.http.oci.answers import JsonResponse

MIN_PREFIX_DIGITS = 8
"""Least number of hexadecimal digits of an id that identify a member. A removal cannot be undone, so a mistyped name,
such as `be`, must not match the beginning of an id."""


class RemoveMemberRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The member to remove: its name, its id, or a prefix of its id that is unique and has at least
    `MIN_PREFIX_DIGITS` digits."""

    instance: str


async def forget(admin: AdminContext, body: bytes) -> Outcome:
    """Remove a member that is gone for good. `instance` of the JSON body is its name, its id, or 8 digits or more of
    that."""
    context = admin.leaving
    try:
        wanted = msgspec.json.decode(body, type=RemoveMemberRequest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"malformed request body: {error}", 400) from None
    members = context.members
    found = _named(members.all(), wanted.instance)
    if len(found) != 1:
        what = "several instances have" if found else "no other instance is known that has"
        reason = "member-ambiguous" if found else "member-unknown"
        raise Unsupported(
            f"{what} the name {wanted.instance[:70]!r}, or an id that is that or begins with that "
            f"({MIN_PREFIX_DIGITS} digits at least)",
            404,
            detail={"reason": reason},
        )
    if found[0].live:
        message = "this instance is live; have it leave (concord leave), or stop it"
        raise Unsupported(message, 409, detail={"reason": "member-live"})
    await context.removals.remove(found[0].instance)
    return Outcome({"removed": found[0].instance}, {"instance": found[0].instance})


def _named(members: list[Member], wanted: str) -> list[Member]:
    """Return the members that match a text: those with exactly that id or name; only where there is none, those whose
    id begins with it."""
    exact = [member for member in members if wanted and wanted in (member.instance, member.beat.name)]
    if exact or len(wanted) < MIN_PREFIX_DIGITS:
        return exact
    return [member for member in members if member.instance.startswith(wanted)]


async def leave(admin: AdminContext, body: bytes) -> Outcome:
    """Begin to decommission this instance."""
    context = admin.leaving
    if not context.members.all():
        message = "there is no other instance that could take over what is here"
        raise Unsupported(message, 409, detail={"reason": "no-other-member"})
    context.decommission.begin()
    return Outcome(_leaving(context), {"instance": context.catalog.instance_id})


async def leaving(admin: AdminContext, request: Request) -> Response:
    """Return the progress of the decommission."""
    return JsonResponse(_leaving(admin.leaving))


def _leaving(context: LeavingContext) -> dict[str, Any]:
    return {
        "leaving": context.decommission.under_way,
        "left": context.lifecycle.has_left,
        "handed_over": context.handover.handed_over,
        "remaining": context.handover.left,
        **remaining(context),
    }

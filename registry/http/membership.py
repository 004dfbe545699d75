"""`/_concord/forget` and `/_concord/leave`: members that go for good."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from registry.errors import Unsupported
from registry.http.administration import Outcome
from registry.http.answers import JsonResponse
from registry.http.standing import remaining
from registry.instance import Instance


class ForgetQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Which instance: its name, its id, or a beginning of that, which no other has."""

    instance: str


async def forget(instance: Instance, body: bytes) -> Outcome:
    """Say that another instance is gone for good: nobody waits for it any more."""
    try:
        question = msgspec.json.decode(body, type=ForgetQuestion)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"the question is malformed: {error}", 400) from None
    members = instance.cluster.members
    wanted = question.instance
    found = [one for one in members.all() if wanted and (one.instance.startswith(wanted) or one.beat.name == wanted)]
    if len(found) != 1:
        what = "several instances have" if found else "no other instance is known that has"
        raise Unsupported(f"{what} the name {wanted[:70]!r} or an id that begins so", 404)
    if found[0].live:
        raise Unsupported("this instance is live; have it leave (concord leave), or stop it", 409)
    await instance.cluster.forget(found[0].instance)
    return Outcome({"forgotten": found[0].instance}, {"instance": found[0].instance})


async def leave(instance: Instance, body: bytes) -> Outcome:
    """Begin to leave for good."""
    if not instance.cluster.members.all():
        raise Unsupported("there is no other instance that could take over what is here", 409)
    instance.cluster.begin_to_leave()
    return Outcome(_leaving(instance), {"instance": instance.catalog.instance_id})


async def leaving(instance: Instance, request: Request) -> Response:
    """How far leaving is."""
    return JsonResponse(_leaving(instance))


def _leaving(instance: Instance) -> dict[str, Any]:
    cluster = instance.cluster
    return {
        "leaving": cluster.leave.under_way,
        "left": cluster.has_left,
        "handed_over": cluster.leave.handed_over,
        "held_by_nobody_else": cluster.leave.left,
        **remaining(instance),
    }

"""`/_concord/forget` and `/_concord/leave`: members that go for good."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from registry.errors import Unsupported
from registry.http.answers import JsonResponse
from registry.http.request import small_body
from registry.instance import Instance

MAX_QUESTION_BYTES = 4096


class ForgetQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Which instance: its id, or a beginning of it that no other has."""

    instance: str


async def forget(instance: Instance, request: Request) -> Response:
    """Say that another instance is gone for good: nobody waits for it any more."""
    body = await small_body(request, MAX_QUESTION_BYTES, Unsupported("the question is too long", 413))
    try:
        question = msgspec.json.decode(body, type=ForgetQuestion)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported(f"the question is malformed: {error}", 400) from None
    members = instance.cluster.members
    found = [member for member in members.all() if question.instance and member.instance.startswith(question.instance)]
    if len(found) != 1:
        what = "several instances begin" if found else "no other instance is known whose id begins"
        raise Unsupported(f"{what} with {question.instance[:40]!r}", 404)
    if found[0].live:
        raise Unsupported("this instance is live; have it leave (concord leave), or stop it", 409)
    await instance.cluster.forget(found[0].instance)
    return JsonResponse({"forgotten": found[0].instance})


async def leave(instance: Instance, request: Request) -> Response:
    """POST begins to leave, GET says how far that is."""
    cluster = instance.cluster
    if request.method == "POST":
        if not cluster.members.all():
            raise Unsupported("there is no other instance that could take over what is here", 409)
        cluster.begin_to_leave()
    return JsonResponse(
        {
            "leaving": cluster.leave.under_way,
            "left": cluster.has_left,
            "handed_over": cluster.leave.handed_over,
            "held_by_nobody_else": cluster.leave.left,
        }
    )

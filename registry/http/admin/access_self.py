"""`/_concord/access/self`: what an account may ask about itself, whatever its rights."""

from starlette.requests import Request
from starlette.responses import Response

from registry.access.rights import ANONYMOUS
from registry.http.access.admission import permissions_of
from registry.http.admin.access_lists import credential_fields, is_past, way_fields
from registry.http.admin.context import AdminContext
from registry.http.oci.answers import JsonResponse

ANONYMOUS_NAME = "anonymous"


async def own_access(admin: AdminContext, request: Request) -> Response:
    """Return which account the caller is, by which `credential`, until when that counts (`until_ms`), and its `grants`.
    `scopes` are those of a token, which narrow the grants."""
    context = admin.access
    policy, now_ms = context.access.policy, context.clock.now_ms()
    permissions = permissions_of(request.scope)
    admission = permissions.admission if permissions is not None else None
    caller = admission.caller if admission is not None else ANONYMOUS
    account = policy.accounts.get(caller.account)
    credentials = policy.credentials.get(caller.account, ())
    ways = [way for way in policy.ways_of(caller) if not is_past(way.expires_ms, now_ms)]
    return JsonResponse(
        {
            "account": caller.account,
            "name": account.name if account is not None else caller.name or ANONYMOUS_NAME,
            "kind": account.kind if account is not None else ANONYMOUS_NAME,
            "groups": sorted(policy.groups.get(caller.account, frozenset()) | caller.groups),
            "credential": next((credential_fields(one) for one in credentials if one.id == caller.credential), None),
            "until_ms": admission.until_ms if admission is not None else None,
            "scopes": admission.scopes if admission is not None else None,
            "grants": [way_fields(policy, way) for way in ways],
            "enforced": policy.is_enforced,
        },
        headers={"Cache-Control": "no-store"},
    )

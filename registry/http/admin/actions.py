"""Administrative actions: who may ask for one, and a log line for each.

Until there are accounts, an act is carried out for

 - a client that signs with the cluster key, in a session as between instances (`cluster.rpc.sessions`): the holder of
   the key can write any fact anyway;
 - a client of the internal listener (`--listen-internal`), which is on a private network;
 - a client on this host, over a loopback address, where the instance has no cluster key or listens there alone.

Where access control is enforced, an act is carried out for the first of these and for administrators of all
repositories, by their credentials (`http.access`), and for no other client.

A relay on this host makes every client look like one on this host. So a request counts as local only where nothing
shows that it was forwarded: no header of a proxy, an address that is none of `--trusted-proxies`, and a `Host` that
names the loopback network. That detects browsers, and proxies that declare themselves. The client writes `Host`, so a
relay that adds no header (a TCP relay, a TLS terminator, `ssh -R`) cannot be distinguished from a local client.
Therefore an instance of a cluster that listens on other than the loopback network demands the signature of local
clients too; one that listens on the loopback network, for want of another way to it, does not, and needs
`--listen-internal` or `--trusted-proxies` where there is a relay.

A request that a web page makes a browser send is refused first (`browsers`), whatever its address or signature. `Host`
is not checked where the request is signed, since no page has the key.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from crdt.errors import Malformed, Unauthentic
from registry.cluster.rpc.sessions import sign_answer
from registry.config import Config
from registry.errors import Denied, OciError, Unsupported
from registry.http.access.admission import permissions_of
from registry.http.admin.context import AccessControlContext, ActionsContext, AdminContext
from registry.http.admin.paths import ACCESS
from registry.http.oci.answers import JsonResponse
from registry.http.peer.handlers import authenticate
from registry.http.peer.procedures import AuthenticatedRequest, RequestRefused
from registry.http.wire.browsers import (
    host_name,
    own_names,
    refuse_form_types,
    refuse_other_hosts,
    refuse_other_sites,
)
from registry.http.wire.request import small_body
from registry.settings.addresses import ip_of, is_loopback
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.administration")

MAX_REQUEST_BYTES = 4096
MAX_NAME_CHARACTERS = 200
HOW_TO_SIGN = "CONCORD_CLUSTER_KEY or --config of the command line"
FORWARDING = frozenset({
    "cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-client-ip", "x-envoy-external-address", "x-real-ip",
})  # fmt: skip
"""Headers by which proxies declare that they forward a request, beside those that begin with `FORWARDED`."""
FORWARDED = "x-forwarded-"


class Outcome(NamedTuple):
    """The result of an administrative action."""

    answer: dict[str, Any]
    logged: Mapping[str, object] = {}
    """The fields that the log line adds."""
    status: int = 200


class Caller(NamedTuple):
    """The caller of an action, and the proof of its identity."""

    name: str
    client: str
    proof: str

    def fields(self) -> dict[str, object]:
        return {"by": self.name, "client": self.client, "proof": self.proof}


Action = Callable[[AdminContext, bytes], Awaitable[Outcome]]


async def perform(admin: AdminContext, request: Request, name: str, act: Action, is_internal: bool) -> Response:
    """Carry an act out, or raise OciError. `is_internal` is set on the internal listener."""
    context = admin.actions
    caller = Caller("", request.client.host if request.client else "", "none")
    try:
        refuse_other_sites(request.headers)
        authenticated = await _signed(context, request)
        permissions = permissions_of(request.scope)
        if permissions is not None and authenticated is None:  # the gate has let an administrator in
            author = permissions.admission.caller
            caller = Caller(author.name, caller.client, "access rights")
            admin = replace(admin, access=replace(admin.access, author=author.account))
        else:
            caller = _identify(context, request, authenticated, caller.client, is_internal)
            if authenticated is None and request.scope["path"].startswith(ACCESS):
                _refuse_beside_administrators(admin.access)
        refuse_form_types(request.headers)
        body = (
            authenticated.body
            if authenticated is not None
            else await small_body(request, MAX_REQUEST_BYTES, _too_long())
        )
        if body is None or len(body) > MAX_REQUEST_BYTES:
            raise _too_long()
        outcome = await act(admin, body)
    except OciError as error:
        _log_refusal(context, name, caller, error)
        raise
    fields = {"act": name, **caller.fields(), **outcome.logged}
    log.info(LogEvent.ADMIN_ACTION_PERFORMED, "administrative act: %(act)s", **fields)
    context.audit.note("administration", **fields)
    response = JsonResponse(outcome.answer, outcome.status)
    if authenticated is not None:
        mac = sign_answer(authenticated.session, authenticated.sequence, response.status_code, bytes(response.body))
        response.headers["Concord-MAC"] = mac
    return response


async def _signed(context: ActionsContext, request: Request) -> AuthenticatedRequest | None:
    """Return the authentic request, or None for one that is not signed. Raises Denied for a wrong signature."""
    if "concord-session" not in request.headers:
        return None
    try:
        return await authenticate(context.access, request, request.scope["path"], MAX_REQUEST_BYTES)
    except (RequestRefused, Malformed, Unauthentic) as error:
        reason = error.reason if isinstance(error, RequestRefused) else "unauthentic"
        context.peer_requests.refused[reason] += 1
        raise Denied(f"the signature of the request is {reason}", {"reason": f"signature-{reason}"}) from None


def _identify(
    context: ActionsContext,
    request: Request,
    authenticated: AuthenticatedRequest | None,
    client: str,
    is_internal: bool,
) -> Caller:
    """Return the caller. Raises Denied for a client that is not authorized."""
    if authenticated is not None:
        return Caller(authenticated.parameters[:MAX_NAME_CHARACTERS] or "unnamed", client, "cluster key")
    if is_internal:
        refuse_other_hosts(request.headers, own_names(context.config))
        return Caller("unnamed", client, "internal listener")
    if not _is_local(context, request, client):
        raise Denied(
            "administrative requests are answered to clients on the instance's own host, on --listen-internal, "
            f"and where they are signed with the cluster key ({HOW_TO_SIGN})",
            {"reason": "signature-required"},
        )
    if _wants_signature(context.config):
        raise Denied(
            "this instance has a cluster key and does not listen on the loopback network alone, so that a client on "
            f"its own host may be a relay for others: sign with the cluster key ({HOW_TO_SIGN})",
            {"reason": "signature-required"},
        )
    return Caller("unnamed", client, "loopback")


def _refuse_beside_administrators(access: AccessControlContext) -> None:
    """Raise Denied where there is an administrator: from then on a change of access control needs one, or the cluster
    key, also before access control is enforced. Else a client of this host could plant another one."""
    if access.access.policy.administrators(access.clock.now_ms()):
        raise Denied(
            f"there is an administrator: sign in as one (--login), or sign with the cluster key ({HOW_TO_SIGN})",
            {"reason": "signature-required"},
        )


def _is_local(context: ActionsContext, request: Request, client: str) -> bool:
    passed_on = any(name in FORWARDING or name.startswith(FORWARDED) for name in request.headers)
    if passed_on or not is_loopback(client) or not is_loopback(host_name(request.headers)):
        return False
    address = ip_of(client)
    return not any(address in network for network in context.config.proxies)


def _wants_signature(config: Config) -> bool:
    """Return whether clients on the instance's own host must sign: where there is a key, and they may come through a
    relay."""
    return bool(config.cluster_key) and not is_loopback(config.address[0].strip("[]"))


def _too_long() -> OciError:
    return Unsupported(f"the request body is too long: expected at most {MAX_REQUEST_BYTES} bytes", 413)


def _log_refusal(context: ActionsContext, name: str, caller: Caller, error: OciError) -> None:
    left_out = context.rejection_limit.admit()
    if left_out is not None:
        fields = {"act": name, **caller.fields(), "status": error.status, **left_out}
        message = "administrative act refused: %(act)s: %(error)s"
        log.warning(LogEvent.ADMIN_ACTION_REJECTED, message, error=error.message, **fields)

"""`/v2/token`: clients get tokens here (Docker's token protocol, by GET; OAuth 2.0, RFC 6749, by POST).

A token is granted for what was asked for, as far as the caller has a right to it. An anonymous caller gets one too,
with what `anonymous` may do. A refresh token stands for the password that has proved an account:
`docker login` keeps it in the password's place. It ends with that password, and serves only to get tokens.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from registry.access.patterns import EVERYTHING
from registry.access.rights import ANONYMOUS, Caller, Right
from registry.access.scopes import ADMINISTRATION, CATALOG, REPOSITORY, TooManyScopes, format_scopes, parse_scopes
from registry.access.tokens import (
    ACCESS_S,
    REFRESH_S,
    Claims,
    TokenRefused,
    TokenUse,
    open_token,
    seal_token,
)
from registry.errors import Unsupported
from registry.http.access.admission import PERMISSIONS, Admission, Permissions
from registry.http.access.challenges import SERVICE
from registry.http.access.gate import Gate, Rejected
from registry.http.access.presented import Basic, Bearer, authorization_of, read_presented
from registry.http.access.rules import WITHOUT_REPOSITORY
from registry.http.oci.answers import JsonResponse
from registry.http.wire.client_certificate import client_subject
from registry.http.wire.request import small_body
from registry.oci.names import MAX_REPOSITORY_LENGTH
from registry.units import KIB

MAX_BODY_BYTES = 64 * KIB
MAX_FIELDS = 200
_TRUE = ("true", "1")

Fields = dict[str, list[str]]


class TokenEndpoint:
    """The token endpoint of one process."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def answer(self, request: Request) -> Response:
        """Answer a request for a token. Raises Unauthorized, Unsupported, TooManyLogins and ProcessUnreachable."""
        if not self._gate.view.is_enforced:
            raise Unsupported("the API has no such path", 404)
        if request.method == "POST":
            fields = await _form(request)
        else:
            fields = {name: request.query_params.getlist(name) for name in request.query_params}
        if _one(fields, "service") not in ("", SERVICE):
            raise Unsupported(f"unknown service: expected {SERVICE!r}", 400)
        try:
            admission, wants_refresh = await self._admission(request, fields)
        except Rejected as rejected:
            raise self._gate.challenges.unauthorized(
                request.scope, WITHOUT_REPOSITORY["token"], str(rejected)
            ) from None
        request.scope[PERMISSIONS] = Permissions(admission, self._gate.view, self._gate.clock)  # for the audit log
        return self._granted(admission, fields.get("scope", []), wants_refresh)

    async def _admission(self, request: Request, fields: Fields) -> tuple[Admission, bool]:
        """Return who asks, and whether for a refresh token too. Raises Rejected, and as `answer` does."""
        if request.method != "POST":
            scope = request.scope
            presented = read_presented(authorization_of(scope["headers"]), client_subject(scope) or "")
            if isinstance(presented, Bearer):
                raise Rejected("a token gets no other token: expected a name and a password")
            admission = await self._gate.authenticate(presented, request.scope)
            wanted = _one(fields, "account")
            if wanted and not admission.is_anonymous and wanted != admission.caller.name:
                raise Rejected("the account in the request is not the one of the credential")
            return admission, _one(fields, "offline_token") in _TRUE
        match _one(fields, "grant_type"):
            case "password":
                basic = Basic(_one(fields, "username"), _one(fields, "password"))
                return await self._gate.authenticate(basic, request.scope), _one(fields, "access_type") == "offline"
            case "refresh_token":
                return self._by_refresh_token(_one(fields, "refresh_token")), False
        raise Unsupported('unknown grant_type: expected "password" or "refresh_token"', 400)

    def _by_refresh_token(self, text: str) -> Admission:
        gate = self._gate
        try:
            claims = open_token(text, gate.keys(), TokenUse.REFRESH, SERVICE, gate.clock.now_ms())
        except TokenRefused as refused:
            raise Rejected(str(refused)) from None
        return gate.admission_by(claims)

    def _granted(self, admission: Admission, wanted: Iterable[str], wants_refresh: bool) -> Response:
        """Return a token for what was asked for, as far as the caller has a right to it."""
        try:
            scopes = {
                resource: granted
                for resource, rights in parse_scopes(wanted).items()
                if (granted := rights & self._rights(admission.caller, resource))
            }
        except TooManyScopes as error:
            raise Unsupported(str(error), 400) from None
        now_s = self._gate.clock.now_ms() // 1000
        bound_s = now_s + REFRESH_S if admission.until_ms is None else admission.until_ms // 1000
        in_claims = {resource: sorted(rights) for resource, rights in scopes.items()}
        token = self._sealed(TokenUse.ACCESS, admission.caller, in_claims, now_s, min(now_s + ACCESS_S, bound_s))
        answer: dict[str, object] = {
            "token": token,
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": min(ACCESS_S, bound_s - now_s),
            "issued_at": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": format_scopes(scopes),
        }
        if wants_refresh and not admission.is_anonymous:
            until_s = min(now_s + REFRESH_S, bound_s)
            answer["refresh_token"] = self._sealed(TokenUse.REFRESH, admission.caller, {}, now_s, until_s)
        return JsonResponse(answer, headers={"Cache-Control": "no-store"})

    def _rights(self, caller: Caller, resource: str) -> frozenset[Right]:
        """Return the rights that a caller has on a resource now."""
        view, now_ms = self._gate.view, self._gate.clock.now_ms()
        if resource == CATALOG:
            may_list = bool(caller.account) or view.may_see_any(ANONYMOUS, now_ms)
            return frozenset({Right.PULL}) if may_list else frozenset()
        if resource == ADMINISTRATION:
            return frozenset(view.rights(caller, EVERYTHING, now_ms))
        name = resource.removeprefix(REPOSITORY)
        return frozenset(view.rights(caller, name, now_ms)) if len(name) <= MAX_REPOSITORY_LENGTH else frozenset()

    def _sealed(self, use: TokenUse, caller: Caller, scopes: dict[str, list[Right]], now_s: int, until_s: int) -> str:
        groups = sorted(caller.groups)
        claims = Claims(use, SERVICE, caller.account, caller.name, caller.credential, groups, scopes, now_s, until_s)
        return seal_token(claims, self._gate.keys()[0])


async def _form(request: Request) -> Fields:
    """Return the fields of a form. Raises Unsupported and SizeInvalid."""
    body = await small_body(request, MAX_BODY_BYTES, Unsupported("the request body is too long", 413))
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Unsupported("the form cannot be read: expected application/x-www-form-urlencoded", 400) from None


def _one(fields: Fields, name: str) -> str:
    """Return a field that comes once; empty where it is left out. Raises Unsupported for one that comes twice."""
    values = fields.get(name, [""])
    if len(values) != 1:
        raise Unsupported(f"the parameter {name} comes several times: expected it once", 400)
    return values[0]

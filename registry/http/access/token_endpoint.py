"""`/v2/token`: clients get tokens here (Docker's token protocol, by GET; OAuth 2.0, RFC 6749, by POST).

A token is granted for what was asked for, as far as the caller has a right to it. An anonymous caller gets one too,
with what `anonymous` may do. A refresh token stands for the password that has proved an account:
`docker login` keeps it in the password's place. It ends with that password, and serves only to get tokens.

An ID token of an identity provider is exchanged (RFC 8693), or stands in place of a password. The tokens that it gets
outlive it, and end with the binding that it proves. A refresh token in its place lives for an hour: the rest of a CI
job, and not much longer where it leaks.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from registry.access.id_tokens import is_id_token
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
from registry.http.access import identity_checks
from registry.http.access.admission import PERMISSIONS, Admission, Permissions
from registry.http.access.challenges import SERVICE
from registry.http.access.gate import Gate, Rejected
from registry.http.access.identity_checks import PresentedIdToken
from registry.http.access.presented import Basic, Bearer, authorization_of, read_presented
from registry.http.access.rules import WITHOUT_REPOSITORY
from registry.http.oci.answers import JsonResponse
from registry.http.wire.client_certificate import client_subject
from registry.http.wire.request import small_body
from registry.oci.names import MAX_REPOSITORY_LENGTH
from registry.settings.trusted_proxies import client_network
from registry.units import KIB

MAX_BODY_BYTES = 64 * KIB
MAX_FIELDS = 200
IDENTITY_REFRESH_S = 3600
"""Life of a refresh token that an ID token got."""
_TRUE = ("true", "1")

Fields = dict[str, list[str]]


class TokenEndpoint:
    """The token endpoint of one process."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def answer(self, request: Request) -> Response:
        """Answer a request for a token. Raises Unauthorized, Unsupported, TooManyLogins, IssuerUnavailable and
        ProcessUnreachable."""
        if not self._gate.view.is_enforced:
            raise Unsupported("the API has no such path", 404)
        if request.method == "POST":
            fields = await _form(request)
        else:
            fields = _fields(request.scope["query_string"])
        if _one(fields, "service") not in ("", SERVICE):
            raise Unsupported(f"unknown service: expected {SERVICE!r}", 400)
        try:
            admission, refresh_s = await self._admission(request, fields)
        except Rejected as rejected:
            raise self._gate.challenges.unauthorized(
                request.scope, WITHOUT_REPOSITORY["token"], str(rejected)
            ) from None
        request.scope[PERMISSIONS] = Permissions(admission, self._gate.view, self._gate.clock)  # for the audit log
        return self._granted(admission, fields.get("scope", []), refresh_s)

    async def _admission(self, request: Request, fields: Fields) -> tuple[Admission, int]:
        """Return who asks, and the life of the refresh token, or 0 for none. Raises Rejected, and as `answer` does."""
        if request.method != "POST":
            scope = request.scope
            presented = read_presented(authorization_of(scope["headers"]), client_subject(scope) or "")
            if isinstance(presented, Bearer):
                raise Rejected("a token gets no other token: expected a name and a password")
            wants_refresh = _one(fields, "offline_token") in _TRUE
            if isinstance(presented, Basic):
                admission, refresh_s = await self._by_basic(presented, scope)
            else:
                # A certificate is bound to its key and to its own expiry, which a refresh token would outlive.
                admission, refresh_s = await self._gate.authenticate(presented, scope), 0
            wanted = _one(fields, "account")
            if wanted and not admission.is_anonymous and wanted != admission.caller.name:
                raise Rejected("the account in the request is not the one of the credential")
            return admission, refresh_s if wants_refresh else 0
        match _one(fields, "grant_type"):
            case "password":
                basic = Basic(_one(fields, "username"), _one(fields, "password"))
                admission, refresh_s = await self._by_basic(basic, request.scope)
                return admission, refresh_s if _one(fields, "access_type") == "offline" else 0
            case "refresh_token":
                return self._by_refresh_token(_one(fields, "refresh_token")), 0
            case identity_checks.TOKEN_EXCHANGE:
                return await self._gate.by_id_token(_exchanged(fields, client_network(request.scope))), 0
        raise Unsupported(
            f'unknown grant_type: expected "password", "refresh_token" or "{identity_checks.TOKEN_EXCHANGE}"', 400
        )

    async def _by_basic(self, basic: Basic, scope: Scope) -> tuple[Admission, int]:
        """Return who presents a name and a password, or an ID token in its place, and the life of a refresh token.
        Raises Rejected, and as `answer` does."""
        if is_id_token(basic.password):
            presented = PresentedIdToken(basic.password, basic.name, client_network(scope))
            return await self._gate.by_id_token(presented), IDENTITY_REFRESH_S
        return await self._gate.authenticate(basic, scope), REFRESH_S

    def _by_refresh_token(self, text: str) -> Admission:
        gate = self._gate
        try:
            claims = open_token(text, gate.keys(), TokenUse.REFRESH, SERVICE, gate.clock.now_ms())
        except TokenRefused as refused:
            raise Rejected(str(refused)) from None
        return gate.admission_by(claims)

    def _granted(self, admission: Admission, wanted: Iterable[str], refresh_s: int) -> Response:
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
            "issued_token_type": identity_checks.ACCESS_TOKEN_TYPE,
            "expires_in": min(ACCESS_S, bound_s - now_s),
            "issued_at": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": format_scopes(scopes),
        }
        if refresh_s and not admission.is_anonymous:
            until_s = min(now_s + refresh_s, bound_s)
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


def _exchanged(fields: Fields, network: str) -> PresentedIdToken:
    """Return the ID token of an exchange. Raises Unsupported for an exchange of anything else."""
    types = (identity_checks.ID_TOKEN_TYPE, identity_checks.JWT_TYPE)
    if _one(fields, "subject_token_type") not in types:
        raise Unsupported(f"unknown subject_token_type: expected {types[0]!r} or {types[1]!r}", 400)
    if _one(fields, "requested_token_type") not in ("", identity_checks.ACCESS_TOKEN_TYPE):
        raise Unsupported(f"unknown requested_token_type: expected {identity_checks.ACCESS_TOKEN_TYPE!r}", 400)
    if _one(fields, "actor_token"):
        raise Unsupported("an actor_token is not supported: an account acts for itself", 400)
    return PresentedIdToken(_one(fields, "subject_token"), _one(fields, "account"), network)


async def _form(request: Request) -> Fields:
    """Return the fields of a form. Raises Unsupported and SizeInvalid."""
    return _fields(await small_body(request, MAX_BODY_BYTES, Unsupported("the request body is too long", 413)))


def _fields(form: bytes) -> Fields:
    """Return the fields of a form or a query. Raises Unsupported."""
    try:
        return parse_qs(form.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Unsupported("the form cannot be read: expected application/x-www-form-urlencoded", 400) from None


def _one(fields: Fields, name: str) -> str:
    """Return a field that comes once; empty where it is left out. Raises Unsupported for one that comes twice."""
    values = fields.get(name, [""])
    if len(values) != 1:
        raise Unsupported(f"the parameter {name} comes several times: expected it once", 400)
    return values[0]

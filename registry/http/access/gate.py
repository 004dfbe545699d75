"""The gate: decides whether a request is let in.

A decision is cached by the bytes of `Authorization` or the client certificate, the resource and the right, until the
credential or the right ends, and for one revision of the facts. The fast path is taken by requests whose decision is in
the cache; all others are decided on the slow path.
"""

import hmac
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from msgspec.structs import replace
from starlette.types import Scope

from registry.access.bindings import Binding
from registry.access.id_tokens import IdTokenRefused, end_ms, is_id_token, read_id_token
from registry.access.keys import is_key, key_hash
from registry.access.rights import ANONYMOUS, AccessView, Caller, Credential, CredentialKind, Right
from registry.access.tokens import Claims, TokenRefused, TokenUse, expiry_ms, open_token
from registry.audit.log import AuditLog
from registry.config import Config
from registry.errors import AccessUnknown, NothingHere
from registry.http.access.admission import PERMISSIONS, RELAYED_ADMISSION, Admission, Permissions, permissions_of
from registry.http.access.challenges import INSUFFICIENT_SCOPE, INVALID_TOKEN, SERVICE, Challenges, denied
from registry.http.access.identity_checks import IdentityChecks, PresentedIdToken
from registry.http.access.password_checks import Attempt, Logins, PasswordChecks
from registry.http.access.presented import (
    Basic,
    Bearer,
    Certificate,
    Nothing,
    Presented,
    Unusable,
    authorization_of,
    read_presented,
)
from registry.http.access.rules import Demand, Rule, internal_rule_of, rule_of
from registry.http.admin.paths import ACCESS
from registry.http.oci.paths import PREFIX, Path
from registry.http.wire.client_certificate import client_subject
from registry.ports import Clock
from registry.settings.trusted_proxies import client_network
from registry.units import HOUR_S, KIB, to_ms

MAX_CACHED = 10_000
MAX_CACHED_BYTES = 4 * KIB
"""Bound on an `Authorization` whose decision is cached: what clients send is shorter."""
UPLOAD_GRACE_S = 3600
"""Time for which a token that has expired still serves the uploads of its account: a large layer takes longer than a
token lives, and clients cannot replace one in the middle of a request."""
_FOREVER_MS = 1 << 62
_CACHED = frozenset({Demand.CREDENTIAL, Demand.RIGHT, Demand.SIGNED})
"""Demands whose decision depends on the credential, the resource and the right alone. `DELEGATED` is none of them: it
names the resource and the right of administration, and lets in accounts that have not that right."""

_CacheKey = tuple[bytes | str, bytes]
"""An `Authorization` or the subject of a certificate, which is no bytes, and what it was presented for."""


class _Decision(NamedTuple):
    """A request that is let in."""

    admission: Admission
    until_ms: int
    revision: int


class _Known(NamedTuple):
    """The facts of one revision, as far as each request needs them."""

    revision: int
    is_enforced: bool
    is_awaited: bool


def _place_of(rule: Rule) -> bytes:
    """Return the part of a decision's key for a demand: for reading a repository, the beginning of its paths, which the
    fast path has at hand."""
    if rule.demand is Demand.CREDENTIAL:
        return b""
    if rule.right is Right.PULL:
        return f"{PREFIX}{rule.repository}".encode()
    return f"{rule.right} {rule.resource}".encode()


class Rejected(Exception):
    """A credential that does not count. The message says why, for the client."""


class Gate:
    """The gate of one process."""

    def __init__(
        self,
        view: AccessView,
        keys: Callable[[], Sequence[bytes]],
        clock: Clock,
        passwords: PasswordChecks,
        identities: IdentityChecks,
        audit: AuditLog,
        config: Config,
    ) -> None:
        """`keys` returns the keys of tokens; the first seals new ones."""
        self.view = view
        self.audit = audit
        self.keys = keys
        self.clock = clock
        self.challenges = Challenges(config.token_url, config.own_url.partition("://")[2])
        self._passwords = passwords
        self._identities = identities
        self._metrics_access = config.metrics_access
        self.logins = Logins(clock)
        self._known = _Known(-1, True, True)
        self._decisions: dict[_CacheKey, _Decision] = {}
        """In the order in which they were made. The oldest makes room: to decide again costs little."""

    def lets_in_at_once(self, target: bytes, headers: Collection[tuple[bytes, bytes]]) -> bool:
        """Return whether a GET or HEAD of the fast path is let in, by a decision that was made before. The path is read
        as `paths.parse_path` reads it: what stands before the last two parts is the name. Of the paths without a name
        the fast path serves the base alone."""
        if self.audit.takes_reads:
            return False  # the slow path records it
        known = self._now()
        if not known.is_enforced:
            return not known.is_awaited
        authorization = None
        for name, value in headers:  # as `authorization_of` does, at half the cost
            if name == b"authorization":
                if authorization is not None:
                    return False
                authorization = value
        if not authorization:
            return False  # the slow path refuses it, or knows the certificate
        return self._cached((authorization, target.rsplit(b"/", 2)[0]), known.revision) is not None

    @property
    def decides(self) -> bool:
        """True if requests need to be admitted: access control is enforced, or may be."""
        known = self._now()
        return known.is_enforced or known.is_awaited

    def _now(self) -> "_Known":
        """Return the revision of the facts, which is read once for each request, and what follows from them."""
        revision = self.view.revision
        if revision != self._known.revision:
            self._known = _Known(revision, self.view.is_enforced, self.view.is_awaited)
        return self._known

    async def admit(self, scope: Scope, path: Path | None, is_internal: bool = False) -> None:
        """Let a request in and put the permissions of its caller into its scope. `path` is None outside `/v2`;
        `is_internal` is set on the internal listener. Raises Unauthorized, Denied, NothingHere, AccessUnknown,
        TooManyLogins, IssuerUnavailable and ProcessUnreachable."""
        known, method = self._now(), scope["method"]
        rule = internal_rule_of(method, scope["path"]) if path is None else rule_of(method, path)
        if known.is_awaited and not self._is_open(rule, scope, is_internal):
            raise AccessUnknown  # an administrator made here would be one of the whole cluster
        if not known.is_enforced and not self._signs_in_to_administer(scope, path):
            return
        if (admission := scope.get(RELAYED_ADMISSION)) is not None:
            scope[PERMISSIONS] = Permissions(admission, self.view, self.clock)
            return
        if rule.demand is Demand.NO_ROUTE:
            raise NothingHere
        if self._is_open(rule, scope, is_internal):
            return
        headers = scope["headers"]
        authorization, certificate = authorization_of(headers), client_subject(scope) or ""
        key = authorization or certificate, _place_of(rule)
        is_cacheable = authorization is not None and len(authorization) <= MAX_CACHED_BYTES and rule.demand in _CACHED
        decision = self._cached(key, known.revision) if is_cacheable else None
        if decision is None:
            grace_s = UPLOAD_GRACE_S if path is not None and path.resource == "upload" else 0
            decision = await self._decide(
                scope, rule, read_presented(authorization, certificate), grace_s, known.revision
            )
            if is_cacheable:
                self._cache(key, decision)
        scope[PERMISSIONS] = Permissions(decision.admission, self.view, self.clock)

    async def admit_again(self, scope: Scope, path: Path) -> None:
        """Decide a request of `/v2` once more that was let in and has waited until this instance is current: what it
        lacked may be a revocation, or the fact that access control is enforced. Raises as `admit` does."""
        permissions = permissions_of(scope)
        if permissions is None:
            await self.admit(scope, path)
            return
        admission, rule = permissions.admission, rule_of(scope["method"], path)
        caller = admission.caller
        if caller.account and not self.view.is_in_force(caller.account, caller.credential):
            raise self.challenges.unauthorized(scope, rule, "the credential is not in force any more")
        self._until_ms(scope, rule, admission)

    def _signs_in_to_administer(self, scope: Scope, path: Path | None) -> bool:
        """Return whether a request asks for a change of access control in the name of an account: that counts before
        access control is enforced, too."""
        is_access = path is None and scope["path"].startswith(ACCESS)
        return is_access and bool(authorization_of(scope["headers"]))

    def _is_open(self, rule: Rule, scope: Scope, is_internal: bool) -> bool:
        """Return whether a request needs no credential, or is authenticated by its handler."""
        match rule.demand:
            case Demand.NOTHING | Demand.PEER:
                return True
            case Demand.SIGNED | Demand.DELEGATED:
                return any(name == b"concord-session" for name, _ in scope["headers"])
            case Demand.METRICS:
                return is_internal or self._metrics_access == "anyone"
        return False

    def _cached(self, key: _CacheKey, revision: int) -> _Decision | None:
        decision = self._decisions.get(key)
        if decision is None:
            return None
        if decision.revision != revision or decision.until_ms <= self.clock.now_ms():
            del self._decisions[key]
            return None
        return decision

    def _cache(self, key: _CacheKey, decision: _Decision) -> None:
        self._decisions[key] = decision
        if len(self._decisions) > MAX_CACHED:
            del self._decisions[next(iter(self._decisions))]

    async def _decide(self, scope: Scope, rule: Rule, presented: Presented, grace_s: int, revision: int) -> _Decision:
        """Decide a request. Raises as `admit` does. Facts that change meanwhile count, and the decision is made again
        at the next request."""
        try:
            if isinstance(presented, Nothing):
                raise Rejected("a token, or a name and a password, are needed")
            admission = await self.authenticate(presented, scope, grace_s)
        except Rejected as rejected:
            error = INVALID_TOKEN if isinstance(presented, Bearer) else ""
            raise self.challenges.unauthorized(scope, rule, str(rejected), error) from None
        self.logins.accepted(admission.caller.credential)
        until_ms = self._until_ms(scope, rule, admission)
        bound_ms = _FOREVER_MS if admission.until_ms is None else admission.until_ms
        latest_ms = self.clock.now_ms() + to_ms(HOUR_S)  # so that uses of a credential are noted again
        return _Decision(admission, min(until_ms, bound_ms, latest_ms), revision)

    def _until_ms(self, scope: Scope, rule: Rule, admission: Admission) -> int:
        """Return the time until which an admitted caller has what a rule demands. Raises Unauthorized and Denied."""
        now_ms, demand = self.clock.now_ms(), rule.demand
        is_in_scope = admission.is_in_scope(rule.resource, rule.right)
        if demand is Demand.CREDENTIAL or (demand is Demand.DELEGATED and is_in_scope):
            return _FOREVER_MS
        if demand is Demand.METRICS and self._metrics_access == "account" and not admission.is_anonymous:
            return _FOREVER_MS
        if demand is Demand.CATALOG:
            is_held = not admission.is_anonymous or self.view.may_see_any(ANONYMOUS, now_ms)
            until_ms: int | None = None
        else:
            rights = self.view.rights(admission.caller, rule.repository, now_ms)
            is_held, until_ms = rule.right in rights, rights.get(rule.right)
        if is_held and is_in_scope:
            return _FOREVER_MS if until_ms is None else until_ms
        if is_held or admission.is_anonymous:
            raise self.challenges.unauthorized(scope, rule, "this needs a token with another scope", INSUFFICIENT_SCOPE)
        raise denied(rule, admission)

    # Credentials

    async def authenticate(self, presented: Presented, scope: Scope, grace_s: int = 0) -> Admission:
        """Return who presents a credential in a request. Raises Rejected, TooManyLogins, IssuerUnavailable and
        ProcessUnreachable."""
        match presented:
            case Bearer(token):
                return self._by_token(token, grace_s)
            case Basic():
                return await self._by_secret(presented, client_network(scope))
            case Certificate(subject):
                return self._by_certificate(subject)
            case Unusable(problem):
                raise Rejected(problem)
        return Admission(ANONYMOUS, None, None)

    def _by_token(self, text: str, grace_s: int) -> Admission:
        try:
            claims = open_token(text, self.keys(), TokenUse.ACCESS, SERVICE, self.clock.now_ms(), grace_s)
        except TokenRefused as refused:
            raise Rejected(str(refused)) from None
        if not claims.account:
            return Admission(ANONYMOUS, claims.scopes, expiry_ms(claims))
        return self.admission_by(claims)

    def admission_by(self, claims: Claims) -> Admission:
        """Return the admission of a token's bearer. Raises Rejected unless the account and the credential, or the
        binding, that the token was issued for are in force."""
        view, account = self.view, claims.account
        proofs: list[Credential | Binding] = [*view.credentials_of(account), *view.bindings_of(account)]
        found = next((one for one in proofs if one.id == claims.credential), None)
        is_over = found is not None and self._has_expired(found)
        if is_over or not self.view.is_in_force(claims.account, claims.credential):
            raise Rejected("the credential that the token was issued for is not in force any more")
        bounds_ms = [expiry_ms(claims)]
        if found is not None and found.expires_ms is not None:
            bounds_ms.append(found.expires_ms)
        caller = Caller(claims.account, claims.name, frozenset(claims.groups), claims.credential)
        scopes = claims.scopes if claims.use is TokenUse.ACCESS else None
        return Admission(caller, scopes, min(bounds_ms))

    async def _by_secret(self, basic: Basic, network: str) -> Admission:
        if is_id_token(basic.password):
            admission = await self.by_id_token(PresentedIdToken(basic.password, basic.name, network))
            ends_ms = end_ms(read_id_token(basic.password).claims)
            return replace(admission, until_ms=min(ends_ms, admission.until_ms or ends_ms))
        account = self.view.account_of(basic.name)
        credentials = self.view.credentials_of(account) if account is not None else []
        usable = [one for one in credentials if not self._has_expired(one)]
        if is_key(basic.password):
            hashed = key_hash(basic.password)
            keys = (one for one in usable if one.kind is CredentialKind.KEY)
            found = next((one for one in keys if hmac.compare_digest(one.secret, hashed)), None)
        else:
            passwords = [one for one in usable if one.kind is CredentialKind.PASSWORD]
            found = await self._passwords.check(Attempt(basic.name, basic.password, network), passwords)
        if found is None or account is None or not self.view.is_in_force(account, found.id):
            if is_key(basic.password):
                self.logins.rejected(basic.name if account is not None else "", network)
            raise Rejected("the name or the password is wrong")
        return Admission(Caller(account, basic.name, frozenset(), found.id), None, found.expires_ms)

    async def by_id_token(self, presented: PresentedIdToken) -> Admission:
        """Return the admission of those who present an ID token, until its binding expires: that bounds the tokens
        for which it is exchanged. Raises Rejected, IssuerUnavailable and ProcessUnreachable."""
        try:
            binding = await self._identities.check(presented)
        except IdTokenRefused as refused:
            raise Rejected(str(refused)) from None
        return Admission(Caller(binding.account, binding.name, frozenset(), binding.id), None, binding.expires_ms)

    def _by_certificate(self, subject: str) -> Admission:
        found = self.view.certificate(subject)
        if found is None or self._has_expired(found) or not self.view.is_in_force(found.account, found.id):
            raise Rejected("the client certificate belongs to no account")
        return Admission(Caller(found.account, subject, frozenset(), found.id), None, found.expires_ms)

    def _has_expired(self, credential: Credential | Binding) -> bool:
        return credential.expires_ms is not None and credential.expires_ms <= self.clock.now_ms()

"""Checks of ID tokens: the binding that a token proves.

The primary checks: it has the keys of issuers, and the memory of the tokens that were used. A worker has the primary
exchange a token, and takes from the registry token that it gets which binding was proved.

A token counts as often as it is presented while it lives, since `docker login` presents it for each token that it
fetches. Each time but the first is logged.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

import msgspec
from blake3 import blake3

from registry.access.bindings import Binding
from registry.access.id_tokens import IdTokenRefused, check_claims, end_ms, read_id_token, verified_claims
from registry.access.rights import AccessView
from registry.access.tokens import TokenRefused, TokenUse, open_token
from registry.errors import IssuerUnavailable, ProcessUnreachable, Unauthorized
from registry.http.access.challenges import SERVICE
from registry.http.access.issuer_keys import ATTEMPT_INTERVAL_S, IssuerKeys
from registry.http.access.primary_tokens import token_of_primary
from registry.http.wire.process_relay import ProcessRelay
from registry.ports import Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import LogLimit

log = EventLog("concord.access_control")

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
"""The grant by which a token of another issuer is exchanged (RFC 8693)."""
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
MAX_USED = 10_000
"""Bound on the tokens of which it is remembered that they were used."""


class PresentedIdToken(NamedTuple):
    """An ID token, the account that it is to prove, and the client's network."""

    text: str
    name: str
    """The name of the account; empty where the token alone says it."""
    network: str


class IdentityChecks(Protocol):
    """The way to have an ID token checked."""

    async def check(self, presented: PresentedIdToken) -> Binding:
        """Return the binding that a token proves. Raises IdTokenRefused, IssuerUnavailable, and ProcessUnreachable."""


class LocalIdentityChecks:
    """The checks of the primary."""

    def __init__(self, view: AccessView, keys: IssuerKeys, clock: Clock, audience: str) -> None:
        """`audience` is that of this registry, which a token has to name."""
        self._view = view
        self._keys = keys
        self._clock = clock
        self._audience = audience
        self._rejections, self._reuses = LogLimit(clock), LogLimit(clock)
        self._used: OrderedDict[bytes, tuple[int, str]] = OrderedDict()
        """Tokens that were used, each with the time until which it counts and the network that has presented it
        first."""

    async def check(self, presented: PresentedIdToken) -> Binding:
        """Check a token as `IdentityChecks.check` says."""
        try:
            binding, until_ms = await self._check(presented)
        except IdTokenRefused as refused:
            if (left_out := self._rejections.admit()) is not None:
                log.warning(
                    LogEvent.ID_TOKEN_REJECTED,
                    "an ID token was refused: %(reason)s",
                    reason=refused,
                    network=presented.network,
                    **left_out,
                )
            raise
        self._note_use(presented, binding, until_ms)
        return binding

    async def _check(self, presented: PresentedIdToken) -> tuple[Binding, int]:
        """Return the binding that a token proves, and until when the token counts."""
        token = read_id_token(presented.text)
        if not self._usable(token.issuer):
            raise IdTokenRefused("no account is bound to the issuer of the ID token")
        check_claims(token.claims, self._audience, self._clock.now_ms())  # before anything is fetched for it
        keys = await self._keys.key_set(token.issuer, token.key_id)
        claims = verified_claims(presented.text, token, keys)
        check_claims(claims, self._audience, self._clock.now_ms())
        matching = [
            one for one in self._usable(token.issuer) if presented.name in ("", one.name) and one.matches(claims)
        ]
        if not matching:
            raise IdTokenRefused("no binding of the account has the claims of the ID token")
        if len({one.account for one in matching}) > 1:
            raise IdTokenRefused("the ID token proves several accounts: name one of them as `account`")
        return max(matching, key=_lasting), end_ms(claims)

    def _usable(self, issuer: str) -> list[Binding]:
        now_ms = self._clock.now_ms()
        return [one for one in self._view.bindings_to(issuer) if one.expires_ms is None or one.expires_ms > now_ms]

    def _note_use(self, presented: PresentedIdToken, binding: Binding, until_ms: int) -> None:
        digest, now_ms = blake3(presented.text.encode()).digest(16), self._clock.now_ms()
        used = self._used.get(digest)
        if used is None:
            while self._used and (len(self._used) >= MAX_USED or next(iter(self._used.values()))[0] <= now_ms):
                self._used.popitem(last=False)
            self._used[digest] = until_ms, presented.network
        elif (left_out := self._reuses.admit()) is not None:
            log.info(
                LogEvent.ID_TOKEN_REUSED,
                "an ID token of %(issuer)s was presented again",
                issuer=binding.issuer,
                account=binding.name,
                binding=binding.id,
                network=presented.network,
                first_network=used[1],
                **left_out,
            )


class RelayedIdentityChecks:
    """The checks of a worker: the primary exchanges the token."""

    def __init__(
        self, relay: ProcessRelay, view: AccessView, keys: Callable[[], Sequence[bytes]], clock: Clock
    ) -> None:
        """`keys` returns the keys of the registry's tokens."""
        self._relay = relay
        self._view = view
        self._keys = keys
        self._clock = clock

    async def check(self, presented: PresentedIdToken) -> Binding:
        """Check a token as `IdentityChecks.check` says."""
        token = read_id_token(presented.text)
        if not self._view.bindings_to(token.issuer):
            raise IdTokenRefused("no account is bound to the issuer of the ID token")
        form = {"grant_type": TOKEN_EXCHANGE, "subject_token": presented.text, "subject_token_type": ID_TOKEN_TYPE}
        fields = urlencode(form | ({"account": presented.name} if presented.name else {})).encode()
        status, body = await token_of_primary(self._relay, presented.network, fields=fields)
        if status != 200:
            raise _failure(token.issuer, status, body)
        try:
            claims = open_token(
                msgspec.json.decode(body, type=_Exchanged).access_token,
                self._keys(), TokenUse.ACCESS, SERVICE, self._clock.now_ms(),
            )  # fmt: skip
        except TokenRefused as refused:
            raise IdTokenRefused(str(refused)) from None
        found = (one for one in self._view.bindings_of(claims.account) if one.id == claims.credential)
        if (binding := next(found, None)) is None:
            raise IdTokenRefused("the binding of the ID token is not in force any more")
        return binding


class _Exchanged(msgspec.Struct):
    access_token: str


class _Reason(msgspec.Struct):
    reason: str = ""


class _Error(msgspec.Struct):
    message: str
    detail: _Reason | None = None


class _Failure(msgspec.Struct):
    errors: list[_Error]


def _failure(issuer: str, status: int, body: bytes) -> Exception:
    """Return the error for an exchange that the primary has refused."""
    error = msgspec.json.decode(body, type=_Failure).errors[0]
    if status == Unauthorized.status:
        return IdTokenRefused(error.message)
    if error.detail is not None and error.detail.reason == IssuerUnavailable.reason:
        return IssuerUnavailable(issuer, int(ATTEMPT_INTERVAL_S))
    return ProcessUnreachable()


def _lasting(binding: Binding) -> tuple[bool, int, str]:
    """Return an order in which the binding that lasts longest is the last."""
    return binding.expires_ms is None, binding.expires_ms or 0, binding.id

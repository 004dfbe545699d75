"""Tokens: what a client shows instead of its password, `VERSION.CLAIMS.MAC`.

A token is opaque to clients: MessagePack under a keyed BLAKE3 MAC, both in URL-safe base64. It names neither an
algorithm nor a key, so a client has no say in how it is verified (cf. CVE-2025-24976). The MAC's key is derived from
the cluster key: every instance of a cluster verifies the tokens of the others, also while it is cut off from them, and
a key that is no longer listed invalidates the tokens that it has sealed.

A token never grants more than the facts as they are now. It states who its bearer is, by which credential that was
proved, and a scope that narrows the bearer's rights; the facts decide the rest at each request.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from blake3 import blake3

from registry.access.rights import Right

VERSION = "1"
ACCESS_S = 900
"""Life of an access token. Clients that take 60 s for the least, as old ones do, are served well."""
REFRESH_S = 90 * 86400
"""Life of a refresh token, which `docker login` keeps in place of the password."""
SKEW_S = 60
"""Difference of the clocks of two instances up to which a token of one counts at the other."""
MAX_CHARACTERS = 16_384


class TokenUse(StrEnum):
    """A use of a token."""

    ACCESS = "access"
    REFRESH = "refresh"


class TokenRefused(Exception):
    """A text that is no valid token. The message says why, for the client."""


class Claims(msgspec.Struct, array_like=True, frozen=True):
    """The claims of a token."""

    use: TokenUse
    service: str
    account: str
    """The id of the bearer's account; empty for an anonymous one."""
    name: str
    credential: str
    """The id of the credential that has proved the account: the token dies with it."""
    groups: list[str]
    """Groups that an identity provider names. Those of facts are not in tokens."""
    scopes: dict[str, list[Right]]
    """The rights that were granted when the token was issued, by resource (`scopes`). None for a refresh token."""
    issued_s: int
    expires_s: int


_decoder = msgspec.msgpack.Decoder(Claims)


def seal_token(claims: Claims, key: bytes) -> str:
    """Return a token with these claims."""
    body = f"{VERSION}.{_text(msgspec.msgpack.encode(claims))}"
    return f"{body}.{_mac(body, key)}"


def open_token(text: str, keys: Sequence[bytes], use: TokenUse, service: str, now_ms: int, grace_s: int = 0) -> Claims:
    """Return the claims of a token that counts now. Raises TokenRefused. `grace_s` is the time for which an expired
    token still counts."""
    body, dot, mac = text.rpartition(".")
    if not dot or len(text) > MAX_CHARACTERS or not text.isascii():
        raise TokenRefused("the token is malformed")
    if not any(hmac.compare_digest(mac, _mac(body, key)) for key in keys):
        raise TokenRefused("the token is not from this registry, or its key is not in use any more")
    version, _, encoded = body.partition(".")
    if version != VERSION:
        raise TokenRefused("the token is of another version")
    try:
        claims = _decoder.decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (msgspec.DecodeError, ValueError):
        raise TokenRefused("the token has claims that this version does not understand") from None
    if claims.service != service:
        raise TokenRefused("the token is for another service")
    if claims.use is not use:
        raise TokenRefused(f"the token is no {use} token")
    if now_ms < (claims.issued_s - SKEW_S) * 1000:
        raise TokenRefused("the token was issued in the future: compare the clocks of the instances")
    if now_ms >= expiry_ms(claims) + grace_s * 1000:
        raise TokenRefused("the token has expired")
    return claims


def expiry_ms(claims: Claims) -> int:
    """Return the time from which a token does not count any more, the skew of clocks included."""
    return (claims.expires_s + SKEW_S) * 1000


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _mac(body: str, key: bytes) -> str:
    """Return the MAC as text. It is compared as text, so that no token has two spellings."""
    return _text(blake3(body.encode(), key=key).digest())

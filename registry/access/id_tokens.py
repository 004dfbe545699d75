"""ID tokens: JSON Web Tokens by which an identity provider says who a workload is (OpenID Connect Core, section 2).

A token is verified with a key of its issuer's key set (RFC 7517), which the token's `kid` only chooses among. What a
token says of its own keys (`jwk`, `jku`, `x5u`, `x5c`) is never used (RFC 8725, section 3; CVE-2025-24976). Only
asymmetric algorithms count, each with the type of key that it is for: neither `none`, nor a MAC whose secret would be a
public key.

Nothing that a token says counts before its signature is verified, but for its issuer, which chooses the keys. The
library for signatures is loaded at the first token.
"""

import re
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from registry.access.tokens import SKEW_S

if TYPE_CHECKING:
    from joserfc.jwk import Key

ALGORITHMS = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "ES384": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
"""The algorithms that count, each with the type of its keys."""
MAX_AGE_S = 600
"""Age up to which a token counts, however long it would live."""
MAX_CHARACTERS = 16_384
MAX_KEYS = 200
MAX_KEY_ID_CHARACTERS = 500
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
_MAX_TIME_S = 2**40
_FORM = re.compile(r"ey[A-Za-z0-9_-]{8,}\.ey[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*\Z", re.ASCII)
_UNDERSTOOD_BY_NONE = ("crit", "b64")
"""Header members that would change how a token is read. A token with one of them is refused."""

Claims = Mapping[str, Any]


class IdTokenRefused(Exception):
    """An ID token that does not count. The message says why, for the client."""


class UnknownKey(IdTokenRefused):
    """An ID token that names a key which is not in the key set."""


class InvalidKeySet(Exception):
    """A text that is no key set."""


class IdToken(NamedTuple):
    """The parts of an ID token that has not been verified."""

    issuer: str
    algorithm: str
    key_id: str
    claims: Claims


def is_id_token(text: str) -> bool:
    """Return whether a text has the form of a signed token, so that it is no password."""
    return len(text) <= MAX_CHARACTERS and _FORM.match(text) is not None


def read_id_token(text: str) -> IdToken:
    """Read a token without verifying it. Raises IdTokenRefused for one that could not be verified at all."""
    if not is_id_token(text):
        raise IdTokenRefused("the ID token is malformed: expected a signed JSON Web Token")
    head, body, _ = text.split(".")
    header, claims = _object_of(head), _object_of(body)
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise IdTokenRefused(
            f"the ID token is not signed by an algorithm that counts: expected {', '.join(ALGORITHMS)}"
        )
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise IdTokenRefused("the token is of another type: expected an ID token")
    if any(name in header for name in _UNDERSTOOD_BY_NONE):
        raise IdTokenRefused("the ID token has a header that is not understood")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID_CHARACTERS:
        raise IdTokenRefused("the ID token names no key: expected the member kid in its header")
    if not isinstance(issuer, str) or not issuer:
        raise IdTokenRefused("the ID token names no issuer")
    return IdToken(issuer, algorithm, key_id, claims)


def check_claims(claims: Claims, audience: str, now_ms: int) -> None:
    """Raise IdTokenRefused unless a token is for this registry, and counts now."""
    for_whom = claims.get("aud")
    audiences = for_whom if isinstance(for_whom, list) else [for_whom]
    if audience not in audiences:
        raise IdTokenRefused(f"the ID token is for another audience: expected {audience!r}")
    now_s = now_ms / 1000
    if now_s >= _time(claims, "exp") + SKEW_S:
        raise IdTokenRefused("the ID token has expired")
    if "nbf" in claims and now_s < _time(claims, "nbf") - SKEW_S:
        raise IdTokenRefused("the ID token does not count yet: compare the clocks")
    issued_s = _time(claims, "iat")
    if now_s < issued_s - SKEW_S:
        raise IdTokenRefused("the ID token was issued in the future: compare the clocks")
    if now_s >= issued_s + MAX_AGE_S + SKEW_S:
        raise IdTokenRefused(f"the ID token is too old: expected one of the last {MAX_AGE_S // 60} minutes")


def end_ms(claims: Claims) -> int:
    """Return the time from which a token does not count any more, the skew of clocks included. Raises
    IdTokenRefused."""
    return int((min(_time(claims, "exp"), _time(claims, "iat") + MAX_AGE_S) + SKEW_S) * 1000)


class KeySet:
    """The public keys of an issuer that can verify tokens. Others, secret ones among them, are left out."""

    def __init__(self, data: bytes) -> None:
        """Raises InvalidKeySet."""
        try:
            listed = msgspec.json.decode(data, type=_KeyList).keys
        except (msgspec.DecodeError, RecursionError):
            raise InvalidKeySet("it is no JSON Web Key Set") from None
        if len(listed) > MAX_KEYS:
            raise InvalidKeySet(f"it has more than {MAX_KEYS} keys")
        self._listed = [one for one in listed if one.get("use", "sig") == "sig"]
        self._imported: dict[tuple[str, str], Key | None] = {}

    def has(self, key_id: str) -> bool:
        """Return whether there is a key with that id."""
        return any(one.get("kid") == key_id for one in self._listed)

    def find(self, key_id: str, algorithm: str) -> "Key | None":
        """Return the key with that id, if it is one for the algorithm."""
        place = key_id, algorithm
        if place in self._imported:
            return self._imported[place]
        found = next((one for one in self._listed if one.get("kid") == key_id and _is_for(one, algorithm)), None)
        if found is None:
            return None  # not remembered: clients choose the id
        self._imported[place] = _imported(found)
        return self._imported[place]


class _KeyList(msgspec.Struct):
    keys: list[dict[str, Any]]


def verified_claims(text: str, token: IdToken, keys: KeySet) -> Claims:
    """Return the claims of a token whose signature is right. Raises IdTokenRefused."""
    from joserfc import jws
    from joserfc.errors import JoseError

    key = keys.find(token.key_id, token.algorithm)
    if key is None:
        raise UnknownKey("the ID token is signed with a key that its issuer does not publish")
    registry = jws.JWSRegistry(algorithms=[token.algorithm], strict_check_header=False)
    registry.max_header_length = registry.max_signature_length = MAX_CHARACTERS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `EdDSA` is an old name of Ed25519, and some issuers use it
            signed = jws.deserialize_compact(text.encode(), key, registry=registry)
    except (JoseError, ValueError, TypeError):
        raise IdTokenRefused("the signature of the ID token is wrong") from None
    return _read_object(signed.payload or b"")


def _is_for(key: Mapping[str, Any], algorithm: str) -> bool:
    operations = key.get("key_ops", ["verify"])
    return (
        key.get("kty") == ALGORITHMS[algorithm]
        and key.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
    )


def _imported(key: Mapping[str, Any]) -> "Key | None":
    """Return a key; None for one that cannot be used, or is too weak."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weak keys, which are left out below
            imported = jwk.import_key({name: value for name, value in key.items() if name not in ("use", "key_ops")})
        if isinstance(imported, jwk.RSAKey) and not MIN_RSA_BITS <= imported.public_key.key_size <= MAX_RSA_BITS:
            return None
        return imported
    except (JoseError, UnsupportedAlgorithm, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None  # the library checks little of what it reads


def _object_of(part: str) -> dict[str, Any]:
    try:
        return _read_object(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        raise IdTokenRefused("the ID token is malformed: a part of it is no base64") from None


def _read_object(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise IdTokenRefused("the ID token is malformed: a part of it is no JSON object") from None


def _time(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_TIME_S:
        raise IdTokenRefused(f"the ID token states no time {name}: expected seconds since 1970")
    return value

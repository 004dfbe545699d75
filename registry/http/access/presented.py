"""The credential that a request presents: in `Authorization` (RFC 7617 for Basic, RFC 6750 for Bearer), or by the
client certificate of its connection."""

from base64 import b64decode
from collections.abc import Collection
from typing import NamedTuple


class Basic(NamedTuple):
    """A name and a password, or a robot's key in place of a password."""

    name: str
    password: str


class Bearer(NamedTuple):
    """A token."""

    token: str


class Certificate(NamedTuple):
    """The subject of a client certificate, which the handshake has verified."""

    subject: str


class Nothing(NamedTuple):
    """No credential."""


class Unusable(NamedTuple):
    """More than one `Authorization`, or one that cannot be read. It is refused, and never taken for none."""

    problem: str


Presented = Basic | Bearer | Certificate | Nothing | Unusable


def authorization_of(headers: Collection[tuple[bytes, bytes]]) -> bytes | None:
    """Return the value of the only `Authorization` header; empty where there is none, None for several."""
    found = b""
    for name, value in headers:
        if name == b"authorization":
            if found:
                return None
            found = value
    return found


def read_presented(authorization: bytes | None, certificate: str) -> Presented:
    """Return the credential of a request. `Authorization` counts before the certificate."""
    if authorization is None:
        return Unusable("the request has several Authorization headers: expected one")
    if not authorization:
        return Certificate(certificate) if certificate else Nothing()
    scheme, _, rest = authorization.partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer" and rest:
        return Bearer(rest.decode("latin-1"))
    if scheme.lower() == b"basic":
        return _basic(rest)
    return Unusable("the scheme of the Authorization header is not known: expected Bearer or Basic")


def _basic(encoded: bytes) -> Presented:
    try:
        name, colon, password = b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return Unusable("the Authorization header is malformed: expected base64 of NAME:PASSWORD")
    if not colon or not name:
        return Unusable("the Authorization header is malformed: expected base64 of NAME:PASSWORD")
    return Basic(name, password)

"""Request heads: the checks of RFC 9110 and RFC 9112 that remain after a parser has parsed a head."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

VERSIONS = ("1.0", "1.1")

_OFFER = b"upgrade"
_NAME = rb"[A-Za-z0-9._~-]{1,255}"
_ADDRESS = rb"\[[0-9A-Fa-f:.]{2,45}\]"
_HOST = re.compile(rb"(?:%b|%b)(?::([0-9]{1,5})?)?\Z" % (_NAME, _ADDRESS))
MAX_PORT = 65535


class Refusal(NamedTuple):
    """A refusal that is sent without the application, and after which a connection ends."""

    status: int
    reason: str
    """For the client to read."""


NO_HTTP = Refusal(400, "invalid HTTP request")
NO_TUNNEL = Refusal(405, "CONNECT is not supported: this server is no proxy")
TOO_LARGE = Refusal(431, "the header fields, or the trailers, are too large")
NO_HOST = Refusal(400, "the Host header field is missing")
MANY_HOSTS = Refusal(400, "the request has more than one Host header field")
INVALID_HOST = Refusal(400, "invalid Host header field: expected NAME or NAME:PORT")
OTHER_CODING = Refusal(501, "unsupported transfer coding: expected chunked alone")
FAULTY_CODING = Refusal(400, "invalid Transfer-Encoding: expected chunked once, in HTTP/1.1")
OTHER_VERSION = Refusal(505, "unsupported version of HTTP: expected 1.0 or 1.1")


def refusal_of(version: str, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
    """Return why a head has to be refused, or None.

    Host (RFC 9112, section 3.2): exactly one in HTTP/1.1 and none or one in HTTP/1.0, and valid. Names are those of
    DNS, with the underscore. The delimiters that RFC 3986 also lets stand in a name are in no host's, and a comma
    there comes from two fields that were joined.
    """
    if version not in VERSIONS:
        return OTHER_VERSION
    host, codings = None, b""
    for name, value in headers:
        if name == b"host":
            if host is not None:
                return MANY_HOSTS
            host = value
        elif name == b"transfer-encoding":
            codings += b"," + value
    if host is None:
        if version == "1.1":
            return NO_HOST
    elif not _is_valid(host):
        return INVALID_HOST
    return _refusal_of_codings(version, codings[1:]) if codings else None


@lru_cache(100)
def _is_valid(host: bytes) -> bool:
    found = _HOST.match(host)
    return found is not None and int(found[1] or 0) <= MAX_PORT


def _refusal_of_codings(version: str, listed: bytes) -> Refusal | None:
    """Return why a body's transfer codings have to be refused (RFC 9112, section 6.1). One other than chunked would be
    stored as if it were the content."""
    codings = [coding.strip().lower() for coding in listed.split(b",")]
    if any(coding != b"chunked" for coding in codings):
        return OTHER_CODING
    return None if len(codings) == 1 and version == "1.1" else FAULTY_CODING


def without_offer(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head again as bytes, less its offer of another protocol (RFC 9110, section 7.8).

    `headers` are names in lower case and values as a parser found them. Neither can contain a line end, so that the
    head means what it meant, and its framing is what it was.
    """
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % header for header in headers if header[0] != _OFFER]
    return b"".join([*lines, b"\r\n"])

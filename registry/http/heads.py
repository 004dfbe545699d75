"""Request heads: what RFC 9110 and RFC 9112 leave to a server once a parser has taken a head apart."""

from collections.abc import Iterable

_OFFER = b"upgrade"


def without_offer(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head again as bytes, less its offer of another protocol (RFC 9110, section 7.8).

    `headers` are names in lower case and values as a parser found them. Neither can contain a line end, so that the
    head means what it meant, and its framing is what it was.
    """
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % header for header in headers if header[0] != _OFFER]
    return b"".join([*lines, b"\r\n"])

"""Request heads: what RFC 9110 and RFC 9112 leave to a server once a parser has taken a head apart."""

from collections.abc import Iterable

_OFFER = b"upgrade"


def transfer_coding_status(version: str, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return 0 for a body that is sent plain or chunked, else the status that refuses its coding (RFC 9112, section
    6.1): 501 for a coding other than chunked, which would be stored as if it were the content, and 400 for faulty
    framing."""
    fields = [value for name, value in headers if name == b"transfer-encoding"]
    if not fields:
        return 0
    codings = [coding.strip().lower() for coding in b",".join(fields).split(b",")]
    if any(coding != b"chunked" for coding in codings):
        return 501
    return 0 if len(codings) == 1 and version == "1.1" else 400


def without_offer(method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head again as bytes, less its offer of another protocol (RFC 9110, section 7.8).

    `headers` are names in lower case and values as a parser found them. Neither can contain a line end, so that the
    head means what it meant, and its framing is what it was.
    """
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % header for header in headers if header[0] != _OFFER]
    return b"".join([*lines, b"\r\n"])

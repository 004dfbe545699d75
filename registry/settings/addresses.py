"""Addresses that an operator writes down: where to listen, where other instances are, and host names.

IPv6 addresses stand in brackets wherever a port may follow (RFC 3986, section 3.2.2). Error messages never repeat an
address that holds a password.
"""

import ipaddress
import re
from urllib.parse import urlsplit

MAX_PORT = 65535
PERCENT_ENCODE = (
    "a character of a user or password that means something in an address is written as its percent-encoding: "
    "%23 for #, %25 for %, %2C for a comma, %2F for /, %3A for :, %3F for ?, %40 for @"
)
"""The remedy for a password that breaks its address, as part of an error message."""


class InvalidAddress(ValueError):
    """Text that is no address. `part` names what of it is wrong: form, brackets, login, scheme, host, port, database,
    or an option's name."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z", re.IGNORECASE)
_TOKEN_PATH = "/v2/token"
_PORT = re.compile(r"[0-9]{1,5}\Z")


def parse_address(text: str) -> tuple[str, int]:
    """Parse HOST:PORT; the host keeps the brackets of an IPv6 address. Raises InvalidAddress."""
    host, colon, port = text.rpartition(":")
    if not colon or not _is_port(port):
        raise InvalidAddress("form", f"invalid address {text!r}: expected HOST:PORT")
    if ":" in host.strip("[]"):
        if not _is_bracketed_ipv6(host):
            raise InvalidAddress(
                "brackets", f"invalid address {text!r}: an IPv6 address stands in brackets, as in [::1]:5000"
            )
    elif host.startswith("[") or host.endswith("]"):
        raise InvalidAddress("brackets", f"invalid address {text!r}: only an IPv6 address stands in brackets")
    return host, int(port)


def is_wildcard(host: str) -> bool:
    """Return whether listening on `host` means every address of the machine."""
    try:
        return not host or ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False


def parse_instance_url(text: str) -> str:
    """Parse the address of another instance, without a trailing slash. Raises InvalidAddress."""
    if "@" in text:
        raise InvalidAddress(
            "login",
            "the address of an instance holds no user and no password: members prove themselves by the cluster key",
        )
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidAddress("port", f"invalid address {text!r}: a port is a number up to {MAX_PORT}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidAddress("form", f"invalid address {text!r}: expected http://HOST:PORT or https://HOST:PORT")
    return text.rstrip("/")


def parse_token_url(text: str) -> str:
    """Parse the address at which clients get tokens. Raises InvalidAddress."""
    if not text.endswith(_TOKEN_PATH) or not text.isascii() or not text.isprintable() or '"' in text:
        raise InvalidAddress("form", f"invalid address {text[:300]!r}: expected https://HOST{_TOKEN_PATH}")
    return parse_instance_url(text)


def parse_issuer(text: str) -> str:
    """Parse the URL of an identity provider, exactly as its tokens state it (OpenID Connect Discovery, section 3).
    Plain HTTP is for this machine alone. Raises InvalidAddress."""
    if not text.isascii() or not text.isprintable() or " " in text or "@" in text:
        raise InvalidAddress("form", f"invalid issuer {text[:300]!r}: expected https://HOST, as its tokens state it")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidAddress("port", f"invalid issuer {text!r}: a port is a number up to {MAX_PORT}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or "?" in text or "#" in text:
        raise InvalidAddress("form", f"invalid issuer {text!r}: expected https://HOST, as its tokens state it")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise InvalidAddress("scheme", f"invalid issuer {text!r}: expected https://, since its keys are trusted")
    return text


def parse_key_file(text: str) -> tuple[str, str]:
    """Parse ISSUER=PATH, the keys of an identity provider in a file. Raises InvalidAddress."""
    issuer, equals, path = text.partition("=")
    if not equals or not path:
        raise InvalidAddress("form", f"invalid key file {text[:300]!r}: expected ISSUER=PATH")
    return parse_issuer(issuer), path


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost` or an address of the loopback network."""
    address = ip_of(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def ip_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that a host is, as IPv4 where it can be one; None for a name."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def parse_host_name(text: str) -> str:
    """Parse a name that clients call a registry by, HOST or HOST:PORT, and return it in lower case. Raises
    InvalidAddress."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    if (colon and host != text and not _is_port(port)) or not (_HOST_NAME.match(host) or _is_bracketed_ipv6(host)):
        raise InvalidAddress(
            "form", f"invalid name {text[:300]!r}: expected HOST or HOST:PORT, as clients write it before an image"
        )
    return text.lower()


def _is_port(text: str) -> bool:
    return _PORT.match(text) is not None and int(text) <= MAX_PORT


def _is_bracketed_ipv6(host: str) -> bool:
    if not (host.startswith("[") and host.endswith("]")):
        return False
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True

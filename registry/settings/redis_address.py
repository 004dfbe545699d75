"""Addresses of Redis servers.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]
    rediss://…                                      with TLS; ?ssl_ca_certs=FILE names who is trusted
    unix://PATH
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/NAME[/DB][?sentinel_password=…]
    rediss+sentinel://…                             with TLS to all of them; ?ssl_ca_certs=FILE here too

The last two name Sentinels, which are asked for the master NAME at every connection; user and password are those of the
master. redis-py has no such form of its own.
"""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from registry.settings.addresses import MAX_PORT, PERCENT_ENCODE, InvalidAddress

SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")
SENTINEL_PORT = 26379
_DATABASE = re.compile(r"[0-9]{0,9}", re.ASCII)


class Sentinels(NamedTuple):
    """The parts of a Redis address with Sentinels."""

    hosts: list[tuple[str, int]]
    master: str
    database: int
    """Number of the Redis database. Pub/sub ignores databases, so `adapters.bus` puts the number into channel names."""
    user: str | None
    password: str | None
    sentinel_password: str | None
    encrypted: bool
    trusted: str | None
    """Path of a file with trusted certificate authorities; None for the authorities that the system trusts."""


def names_sentinels(url: str) -> bool:
    return "+sentinel://" in url


def split_addresses(text: str) -> list[str]:
    """Split a list of addresses at its commas, but not at those between the Sentinels of one address."""
    addresses: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if addresses and "://" not in part and names_sentinels(addresses[-1]):
            addresses[-1] += f",{part}"
        elif part:
            addresses.append(part)
    return addresses


def check_address(url: str) -> None:
    """Raises InvalidAddress, which repeats nothing of the address, for what is no address of a Redis."""
    if not url.startswith(SCHEMES):
        raise InvalidAddress("scheme", f"a Redis address begins with one of {', '.join(SCHEMES)}; {PERCENT_ENCODE}")
    if names_sentinels(url):
        _check_whole(url)
        parse_sentinels(url)
    elif not url.startswith("unix://"):
        _check_whole(url)
        _check_server(url)
    database_of(url)
    _check_trusted(url)


def _check_whole(url: str) -> None:
    """Refuse an address that a password has cut in two: the text after its # or ? would be read as something else."""
    _, path, query = _parts(url)
    if "#" in url or "@" in path or any("@" in pair.partition("=")[0] for pair in query.split("&")):
        raise InvalidAddress("form", f"a Redis address has an unexpected # or @; {PERCENT_ENCODE}")


def _check_server(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidAddress(
            "port", f"the port of a Redis address is a number up to {MAX_PORT}; {PERCENT_ENCODE}"
        ) from None
    if not parts.hostname:
        raise InvalidAddress(
            "host", f"a Redis address names no host (IPv6 addresses stand in brackets); {PERCENT_ENCODE}"
        )


def database_of(url: str) -> int:
    """The number of the database in an address. Raises InvalidAddress where what stands there is none."""
    if names_sentinels(url):
        return parse_sentinels(url).database
    _, path, query = _parts(url)
    text = parse_qs(query).get("db", [""])[0] or ("" if url.startswith("unix://") else path.strip("/"))
    if not _DATABASE.fullmatch(text):
        raise InvalidAddress(
            "database", f"a Redis address ends in the number of a database, or without one; {PERCENT_ENCODE}"
        )
    return int(text or 0)


def is_encrypted(url: str) -> bool:
    return url.startswith("rediss")


def _check_trusted(url: str) -> None:
    for file in parse_qs(_parts(url)[2]).get("ssl_ca_certs", []):
        if not is_encrypted(url):
            raise InvalidAddress("ssl_ca_certs", "ssl_ca_certs is for rediss:// addresses; this one is without TLS")
        if not Path(file).is_file():
            raise InvalidAddress("ssl_ca_certs", f"there is no file {file} that ssl_ca_certs names")


def shown(url: str) -> str:
    """Return an address without its secrets."""
    if names_sentinels(url):
        sentinels = parse_sentinels(url)
        hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in sentinels.hosts)
        return f"{_scheme(url)}{','.join(hosts)}/{sentinels.master}"
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or 6379}" if host else parts.path


def passwords(url: str) -> set[str]:
    """Return the passwords in an address, raw and decoded, for removal from logs."""
    netloc, _, query = _parts(url)
    password = netloc.rpartition("@")[0].partition(":")[2]
    return {password, unquote(password), *(value for name, value in parse_qsl(query) if name.endswith("password"))}


def parse_sentinels(url: str) -> Sentinels:
    """Raises InvalidAddress."""
    netloc, path, text = _parts(url)
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    master, _, database = path.strip("/").partition("/")
    if not master or not hosts or not _DATABASE.fullmatch(database):
        raise InvalidAddress(
            "form", "an address with Sentinels is redis+sentinel://HOST:PORT,…/NAME, with the master's name"
        )
    query = parse_qs(text, strict_parsing=bool(text))
    return Sentinels(
        [_host(one) for one in hosts.split(",")],
        unquote(master),
        int(database or 0),
        unquote(user) or None,
        unquote(password) or None,
        query.get("sentinel_password", [None])[0],
        is_encrypted(url),
        query.get("ssl_ca_certs", [None])[0],
    )


def _parts(url: str) -> tuple[str, str, str]:
    """Login and hosts, path and query. `urlsplit` refuses several hosts where one is an IPv6 address."""
    place, _, query = url.partition("#")[0].removeprefix(_scheme(url)).partition("?")
    netloc, _, path = place.partition("/")
    return netloc, path, query


def _scheme(url: str) -> str:
    return url[: url.index("://") + len("://")]


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise InvalidAddress("port", f"the port of a Sentinel is a number up to {MAX_PORT}; {PERCENT_ENCODE}") from None
    if not parts.hostname:
        raise InvalidAddress("host", f"a Sentinel is given as HOST:PORT; {PERCENT_ENCODE}")
    return parts.hostname, port or SENTINEL_PORT

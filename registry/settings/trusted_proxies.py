"""The client address and scheme of a request that comes through proxies.

Behind a proxy every connection has the proxy's address. The proxy adds the address of its own client to
`X-Forwarded-For`, and the scheme to `X-Forwarded-Proto`. Any client can send these fields, so they are believed only
from `trusted_proxies`. The list is read from its right end: each address that a trusted proxy has added counts, up to
the first that is no trusted proxy itself.
"""

from collections.abc import Iterable, MutableMapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

MAX_HOPS = 32
"""A longer list of addresses is not read further: no chain of proxies is as long."""
IPV4_PREFIX_BITS, IPV6_PREFIX_BITS = 24, 48
"""Prefix lengths of the networks that count as one client, which gets all addresses in them at no cost: a small IPv4
network, an IPv6 site."""
_FORWARDED_FOR, _FORWARDED_PROTO = b"x-forwarded-for", b"x-forwarded-proto"
_SCHEMES = ("http", "https")


def parse_proxies(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks from addresses and networks, such as `10.1.0.2` or `10.1.0.0/29`. Raises ValueError.

    They must hold proxies alone: a client in one of them writes its own address."""
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise ValueError(f"invalid proxy {text!r}: expected an address or a network: {error}") from None
    return tuple(networks)


class TrustedProxies:
    """The networks whose forwarded fields are believed."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    def resolve(self, scope: MutableMapping[str, Any]) -> None:
        """Put the client's address and scheme into a request's ASGI scope, where a trusted proxy has sent them."""
        client = scope.get("client")
        if not self._networks or not client or not self._is_trusted(_parse(client[0])):
            return
        fields = scope["headers"]
        hops = b",".join(value for name, value in fields if name == _FORWARDED_FOR).decode("latin-1").split(",")
        for hop in reversed(hops[-MAX_HOPS:]):
            address = _parse(hop)
            if address is None:
                break  # the addresses before it are not from a trusted proxy
            scope["client"] = (str(address), 0)
            if not self._is_trusted(address):
                break
        schemes = [value for name, value in fields if name == _FORWARDED_PROTO]
        if schemes and (scheme := schemes[-1].decode("latin-1").strip().lower()) in _SCHEMES:
            scope["scheme"] = scheme

    def _is_trusted(self, address: _Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


NO_PROXIES = TrustedProxies(())


def client_network(scope: MutableMapping[str, Any]) -> str:
    """Return the network of a request's client, as the bound on uploads counts them; empty where it has none."""
    client = scope.get("client")
    address = _parse(client[0]) if client else None
    if address is None:
        return ""
    bits = IPV4_PREFIX_BITS if address.version == 4 else IPV6_PREFIX_BITS
    return str(ip_network((address, bits), strict=False))


def _parse(text: str) -> _Address | None:
    """Return an address, with or without a port; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address

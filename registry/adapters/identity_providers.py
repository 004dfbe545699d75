"""The keys of identity providers, by HTTP (OpenID Connect Discovery 1.0, section 4) or from files.

Only what an issuer itself publishes counts: its configuration has to name it exactly, and is fetched without redirects
or a proxy. Keys come over TLS alone; an issuer on this machine may use plain HTTP. Times and sizes are bounded.
"""

import asyncio
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from registry.adapters.http import HttpTransport
from registry.config import Config
from registry.errors import CannotStart
from registry.ports import IssuerUnreachable, PeerTransport, PeerUnreachable
from registry.settings.addresses import InvalidAddress, is_loopback, parse_issuer, parse_key_file
from registry.units import KIB

CONFIGURATION_PATH = "/.well-known/openid-configuration"
TIMEOUT_S = 10.0
"""Time for the configuration and the keys together."""
_HEADERS = (("Accept", "application/json"), ("Accept-Encoding", "identity"))
"""Of a request. The transport decompresses nothing."""
MAX_CONFIGURATION_BYTES = 64 * KIB
MAX_KEYS_BYTES = 256 * KIB


class IdentityProviders:
    """See `registry.ports.KeySource`."""

    def __init__(self, transport: HttpTransport, files: Mapping[str, Path]) -> None:
        """`files` are the key sets of issuers that are not contacted."""
        self._transport = transport
        self._files = files

    async def fetch(self, issuer: str) -> bytes:
        if (file := self._files.get(issuer)) is not None:
            return await asyncio.get_running_loop().run_in_executor(None, partial(_read, file))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await _fetch(self._transport, issuer)
        except TimeoutError:
            raise IssuerUnreachable("no answer in time") from None
        except PeerUnreachable as error:
            raise IssuerUnreachable(str(error)) from None

    async def close(self) -> None:
        """End the connections."""
        await self._transport.close()


def identity_providers(config: Config) -> IdentityProviders:
    """Return the identity providers as configured. Raises CannotStart for files that cannot be read."""
    files = {issuer: Path(path) for issuer, path in map(parse_key_file, config.oidc_keys)}
    for file in files.values():
        try:
            _read(file)
        except IssuerUnreachable as error:
            raise CannotStart(f"{error} (oidc_keys)") from None
    return IdentityProviders(HttpTransport(_Authorities(config.oidc_ca) if config.oidc_ca else None), files)


class _Authorities:
    """The authorities of the system, and those in a file."""

    def __init__(self, file: str) -> None:
        """Raises CannotStart."""
        self.connecting = ssl.create_default_context()
        try:
            self.connecting.load_verify_locations(file)
        except OSError as error:  # an SSLError is one
            problem = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise CannotStart(f"the file {file} (oidc_ca) cannot be used: {problem}") from None


class _Configuration(msgspec.Struct):
    """The members of a configuration that matter."""

    issuer: str
    jwks_uri: str


async def _fetch(transport: PeerTransport, issuer: str) -> bytes:
    """Return the key set of an issuer. Raises IssuerUnreachable and PeerUnreachable."""
    try:
        parse_issuer(issuer)  # facts of another version may hold what no command takes
    except InvalidAddress as error:
        raise IssuerUnreachable(str(error)) from None
    answer = await _get(transport, issuer.rstrip("/") + CONFIGURATION_PATH, MAX_CONFIGURATION_BYTES)
    try:
        configuration = msgspec.json.decode(answer, type=_Configuration)
    except (msgspec.DecodeError, RecursionError):
        raise IssuerUnreachable("its configuration has no issuer and jwks_uri") from None
    if configuration.issuer != issuer:
        raise IssuerUnreachable(f"its configuration is that of another issuer: {configuration.issuer[:300]!r}")
    if not _is_trusted(configuration.jwks_uri, issuer):
        raise IssuerUnreachable(f"its keys are not at an https:// address: {configuration.jwks_uri[:300]!r}")
    return await _get(transport, configuration.jwks_uri, MAX_KEYS_BYTES)


def _is_trusted(url: str, issuer: str) -> bool:
    """Return whether keys may be fetched from an address: by TLS, or for an issuer on this machine, from there."""
    try:
        parts, own = urlsplit(url), urlsplit(issuer)
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and own.scheme == "http" and is_loopback(parts.hostname or "")


async def _get(transport: PeerTransport, url: str, max_bytes: int) -> bytes:
    data = bytearray()
    async with transport.request("GET", url, _HEADERS) as response:
        if response.status != 200:
            raise IssuerUnreachable(f"{url} answered {response.status}")
        async for chunk in response.chunks():
            data += chunk
            if len(data) > max_bytes:
                raise IssuerUnreachable(f"the answer of {url} is longer than {max_bytes} bytes")
    return bytes(data)


def _read(file: Path) -> bytes:
    """Read a key set. Raises IssuerUnreachable."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_KEYS_BYTES + 1)
    except OSError as error:
        raise IssuerUnreachable(f"the key file {file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_KEYS_BYTES:
        raise IssuerUnreachable(f"the key file {file} is longer than {MAX_KEYS_BYTES} bytes")
    return data

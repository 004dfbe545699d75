"""Asking a running instance over its own API."""

import asyncio
import os
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    import aiohttp

REQUEST_TIMEOUT_S = 10
OWN = "/_concord/"
INTERNAL = (
    "; where an instance has --listen-internal, status and administration are served there alone, so ask it at that "
    "address (CONCORD_URL)"
)
JSON = {"Content-Type": "application/json"}


class Trust:
    """Variable with the certificate authorities to trust for instances, and for proxies in front of them, beside those
    that the system trusts."""

    authorities: Path | None = None


class Login:
    """Variable with the file that has the name and the secret to sign in with."""

    file: Path | None = None


class NoAnswer(Exception):
    """An instance gave no usable answer; the text is for the person who ran the command."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def ask(url: str, path: str, parameters: Mapping[str, str] | None = None, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """GET a path of an instance. Raises NoAnswer."""
    return asyncio.run(_ask("GET", url, path, parameters, None, timeout_s))


def post(url: str, path: str, request: object, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """POST a request as JSON. Raises NoAnswer."""
    return asyncio.run(_ask("POST", url, path, None, msgspec.json.encode(request), timeout_s))


def act(url: str, path: str, request: object, secrets: Sequence[str], timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
    """POST an administrative request as JSON, signed with the first of the cluster's secrets if there are any. Raises
    NoAnswer."""
    return asyncio.run(_act(url, path, msgspec.json.encode(request), secrets, timeout_s))


async def _ask(
    method: str, url: str, path: str, parameters: Mapping[str, str] | None, body: bytes | None, timeout_s: float
) -> Any:
    async with (
        _connected(url, timeout_s) as (session, address),
        session.request(method, address + path, params=parameters, data=body, headers=JSON if body else {}) as response,
    ):
        return _read(address, path, response.status, await response.read())


async def _act(url: str, path: str, body: bytes, secrets: Sequence[str], timeout_s: float) -> Any:
    from registry.cli import signing
    from registry.cluster.rpc.keys import ClusterKey

    async with _connected(url, timeout_s) as (http, address):
        signature, session = dict[str, str](), None
        if secrets:
            key = ClusterKey(secrets[0])
            opening = signing.open_session(key)
            async with http.post(address + signing.SESSION_PATH, data=opening.body, headers=opening.headers) as opened:
                answer, mac = await opened.read(), opened.headers.get("Concord-MAC")
            session = signing.read_session(key, opening, mac, answer)
        if session is not None:  # else as a client without the key, which may be on the instance's own host
            signature = signing.signed_headers(session, path, body)
        async with http.post(address + path, data=body, headers={**JSON, **signature}) as response:
            content, mac = await response.read(), response.headers.get("Concord-MAC")
        if response.status == 403 and secrets and session is None:
            raise NoAnswer(f"{_shown(address)} does not accept the cluster key, and {_message(content)}", 403)
        decoded = _read(address, path, response.status, content)
        if session is not None and not signing.is_authentic(session, response.status, content, mac):
            raise NoAnswer(f"{_shown(address)} gave an answer that is not signed with the cluster key")
        return decoded


@asynccontextmanager
async def _connected(url: str, timeout_s: float) -> AsyncIterator[tuple["aiohttp.ClientSession", str]]:
    """Yield an HTTP client and the address to ask. Raises NoAnswer for what goes wrong meanwhile."""
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoAnswer(f"{_shown(url)!r} is no address of an instance, such as http://10.0.0.5:5000")
    import aiohttp  # it takes a tenth of a second to load, and most commands send no request

    shown, limit = _shown(address), aiohttp.ClientTimeout(total=timeout_s)
    try:
        connector = aiohttp.TCPConnector(ssl=_trusted())
        async with aiohttp.ClientSession(timeout=limit, connector=connector, headers=_login()) as session:
            yield session, address
    except TimeoutError:
        raise NoAnswer(f"{shown} does not answer within {timeout_s:g} s") from None
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise NoAnswer(f"{shown} cannot be trusted: {error}; --ca FILE names who signs its certificate") from None
    except aiohttp.ClientConnectorError as error:
        raise NoAnswer(f"{shown} cannot be reached: {_reason(error.os_error)}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NoAnswer(f"{shown} cannot be asked: {str(error) or type(error).__name__}") from None


def _trusted() -> ssl.SSLContext | bool:
    """Return the TLS settings. Raises NoAnswer for an authorities file that cannot be read or has no certificate."""
    if Trust.authorities is None:
        return True
    try:
        return ssl.create_default_context(cafile=Trust.authorities)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "it holds no certificates"
        raise NoAnswer(f"the file {Trust.authorities} that --ca names cannot be used: {reason}") from None


def _login() -> dict[str, str]:
    """Return the header that signs in. Raises NoAnswer for a file that cannot be read or has no name and secret."""
    if Login.file is None:
        return {}
    try:
        text = Login.file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise NoAnswer(f"the file {Login.file} that --login names cannot be read: {reason}") from None
    name, colon, secret = text.partition(":")
    if not name or not colon or not secret or "\n" in text:
        raise NoAnswer(f"the file {Login.file} that --login names is invalid: expected one line, NAME:SECRET")
    return {"Authorization": "Basic " + b64encode(text.encode()).decode()}


def _shown(address: str) -> str:
    """An address without user and password."""
    scheme, mark, rest = address.rpartition("://")
    place, slash, path = rest.partition("/")
    return scheme + mark + place.rpartition("@")[2] + slash + path


def _read(address: str, path: str, status: int, content: bytes) -> Any:
    if status not in (200, 202):
        hint = INTERNAL if status == 404 and path.startswith(OWN) and _is_elsewhere(content) else ""
        raise NoAnswer(f"{_shown(address)} answered {status}: {_message(content)}{hint}", status)
    return msgspec.json.decode(content)


def _is_elsewhere(content: bytes) -> bool:
    """Return whether a 404 says that there is no such path, rather than that a resource is missing."""
    try:
        return bool(msgspec.json.decode(content)["errors"][0]["detail"]["reason"] == "nothing-here")
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return not _is_answer(content)


def _is_answer(content: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(content)["errors"][0]["code"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return False


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _message(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content)["errors"][0]["message"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return content[:200].decode(errors="replace").strip()

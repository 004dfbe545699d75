"""HTTP to other instances, with aiohttp.

aiohttp is loaded at its first use: that takes a tenth of a second, and an instance that is alone sends no request.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from registry.ports import Body, PeerUnreachable
from registry.units import KIB

if TYPE_CHECKING:
    import aiohttp

CONNECT_TIMEOUT_S = 2.0
CHUNK_BYTES = 256 * KIB


class HttpResponse:
    """See `registry.ports.PeerResponse`."""

    def __init__(self, response: "aiohttp.ClientResponse") -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def chunks(self) -> AsyncIterator[bytes]:
        import aiohttp

        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise PeerUnreachable(f"the answer broke off: {_reason(error)}") from None


class _Source:
    """A streamed body that remembers its own failure, so that it is not taken for the peer's."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                yield chunk
        except Exception as error:
            self.failure = error
            raise


class ClientTls(Protocol):
    """The TLS of requests to `https://` addresses."""

    @property
    def connecting(self) -> ssl.SSLContext | None:
        """The present context. Connections made with an earlier one are not used again."""


class HttpTransport:
    """See `registry.ports.PeerTransport`. `open` before use or with the first request, `close` after use."""

    def __init__(self, tls: ClientTls | None, is_mutual: bool = False) -> None:
        """`tls` is None where the authorities of the system are trusted. With `is_mutual`, nothing is sent without
        TLS."""
        self._session: aiohttp.ClientSession | None = None
        self._tls = tls
        self._is_mutual = is_mutual

    @asynccontextmanager
    async def request(
        self, method: str, url: str, headers: Sequence[tuple[str, str]] = (), body: Body = b""
    ) -> AsyncIterator[HttpResponse]:
        import aiohttp

        session = self.open()
        if self._is_mutual and not url.startswith("https://"):
            raise PeerUnreachable(f"{_origin(url)} is no https:// address, and instances use TLS among themselves here")
        source = body if isinstance(body, bytes) else _Source(body)
        try:
            exchange = await session.request(
                method,
                url,
                headers=list(headers),
                data=source,
                allow_redirects=False,
                skip_auto_headers=("User-Agent",),
                # Nothing is read from the source before the other end reads: it may not be repeatable.
                expect100=isinstance(source, _Source),
                ssl=(self._tls and self._tls.connecting) or True,
            )
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if isinstance(source, _Source) and source.failure is not None:
                raise source.failure from None
            raise PeerUnreachable(f"{_origin(url)} cannot be reached: {_reason(error)}") from None
        try:
            yield HttpResponse(exchange)
        finally:
            if exchange.content.at_eof():
                exchange.release()
            else:
                exchange.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            await asyncio.sleep(0)  # aiohttp closes its connections on the next turn of the loop

    def open(self) -> "aiohttp.ClientSession":
        """Load aiohttp. The event loop waits for it."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                # No limit: slow streams would keep requests waiting, and the peer would look dead.
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=30),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                read_bufsize=CHUNK_BYTES,
            )
        return self._session


def _origin(url: str) -> str:
    """Return an address without its path; a text that is no address is cut in the same way."""
    return "/".join(url.split("/", 3)[:3])


def _reason(error: Exception) -> str:
    """Return the reason of a failed request in words that an operator can act on. An instance that restarts is an
    ordinary case."""
    import aiohttp

    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"its name cannot be resolved ({error.os_error.strerror})"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionResetError):
        return "it closed the connection"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what answers there does not speak HTTP"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ssl.SSLError | ssl.CertificateError):
        return f"TLS failed: {cause}"
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return f"{error} ({type(error).__name__})" if str(error) else type(error).__name__

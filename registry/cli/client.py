"""Asking a running instance over its own API."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 10


class NoAnswer(Exception):
    """An instance that cannot be asked, in words for the person who did."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def ask(url: str, path: str, parameters: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S) -> Any:
    """GET a path of an instance. Raises NoAnswer."""
    return asyncio.run(_ask("GET", url, path, parameters, None, timeout_s))


def post(url: str, path: str, question: object, timeout_s: float = TIMEOUT_S) -> Any:
    """POST a question as JSON. Raises NoAnswer."""
    return asyncio.run(_ask("POST", url, path, None, msgspec.json.encode(question), timeout_s))


async def _ask(
    method: str, url: str, path: str, parameters: Mapping[str, str] | None, body: bytes | None, timeout_s: float
) -> Any:
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoAnswer(f"{url!r} is no address of an instance, such as http://10.0.0.5:5000")
    import aiohttp  # most commands ask nobody, and it takes a tenth of a second to load

    limit = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.request(method, address + path, params=parameters, data=body) as response,
        ):
            content = await response.read()
            if response.status not in (200, 202):
                raise NoAnswer(f"{address} answered {response.status}: {_message(content)}", response.status)
            return msgspec.json.decode(content)
    except TimeoutError:
        raise NoAnswer(f"{address} does not answer within {timeout_s:g} s") from None
    except aiohttp.ClientConnectorError as error:
        raise NoAnswer(f"{address} cannot be reached: {_reason(error.os_error)}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NoAnswer(f"{address} cannot be asked: {str(error) or type(error).__name__}") from None


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


def _message(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content)["errors"][0]["message"])
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return content[:200].decode(errors="replace").strip()

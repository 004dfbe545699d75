"""Reading requests."""

import asyncio
import re
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from registry.blobs.uploads import ClientGone, Span
from registry.errors import OciError, SizeInvalid, Unsupported

BODY_IDLE_S = 60.0
MAX_COUNT = 10_000

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d+|\*))?\Z")


def patient(receive: Receive) -> Receive:
    """A `receive` that gives up on a client that sends nothing for a minute."""

    async def receive_in_time() -> dict[str, object]:
        async with asyncio.timeout(BODY_IDLE_S):
            return dict(await receive())

    return receive_in_time


async def body_stream(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ClientGone when the client leaves or falls silent before its end."""
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except (ClientDisconnect, TimeoutError):
        raise ClientGone("the client stopped in the middle of a body") from None


async def small_body(request: Request, limit_bytes: int, too_large: OciError) -> bytes:
    """The whole body. Raises `too_large` for one above the limit, and SizeInvalid for one that breaks off."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise too_large
    parts, size = [], 0
    try:
        async for chunk in body_stream(request):
            parts.append(chunk)
            size += len(chunk)
            if size > limit_bytes:
                raise too_large
    except ClientGone:
        raise SizeInvalid("the body broke off") from None
    return b"".join(parts)


def content_range(request: Request) -> Span | None:
    """The bytes a chunk says it brings: `first-last`. Raises SizeInvalid where header and length contradict."""
    header = request.headers.get("content-range")
    if header is None:
        return None
    found = _CONTENT_RANGE.match(header.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise SizeInvalid("the Content-Range is malformed", {"contentRange": header[:100]})
    span = Span(int(found[1]), int(found[2]) - int(found[1]) + 1)
    declared = request.headers.get("content-length")
    if declared is not None and declared != str(span.length):
        raise SizeInvalid("Content-Range and Content-Length contradict each other")
    return span


def count_parameter(request: Request) -> int | None:
    """The `n` of a paged list, cut to what one page may hold; None when it is absent. Raises Unsupported."""
    text = request.query_params.get("n")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 20:
        raise Unsupported("n is no number", 400)
    return min(int(text), MAX_COUNT)


def media_type(request: Request) -> str | None:
    """The Content-Type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip() or None

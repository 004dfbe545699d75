"""Reading requests."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import ClientDisconnect, Request

from registry.errors import OciError, SizeInvalid, Unsupported
from registry.oci.ranges import ByteRange
from registry.storage.uploads import ClientGone

BODY_IDLE_TIMEOUT_S = 60.0
MAX_COUNT = 10_000

_NUMBER = re.compile(r"[0-9]{1,20}\Z")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?\Z")


CUT_OFF = "cut-off"
"""The message of the cancellation by which the server aborts a request at the end of a drain."""


class CutOffByEnd(ClientGone):
    """This instance is ending, so the rest of a body is not received."""


async def body_stream(request: Request) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises ClientGone when the client leaves, or sends nothing for a minute, before its
    end, and CutOffByEnd."""
    chunks = request.stream()
    try:
        while True:
            async with asyncio.timeout(BODY_IDLE_TIMEOUT_S):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            if chunk:
                yield chunk
    except (ClientDisconnect, TimeoutError):
        raise ClientGone("the client stopped in the middle of a body") from None
    except asyncio.CancelledError as error:
        if error.args != (CUT_OFF,):
            raise
        raise CutOffByEnd("the time for draining is over") from None  # what has come is kept


def number(text: str) -> int | None:
    """Return the number that ASCII decimal digits spell, if there are not too many of them; else None."""
    return int(text) if _NUMBER.match(text) else None


async def small_body(
    request: Request, limit_bytes: int, too_large: OciError, take: Callable[[int], Awaitable[None]] | None = None
) -> bytes:
    """Return the whole body. Raises `too_large` for one above the limit, and SizeInvalid for one that breaks off.

    `take` is called with the number of bytes before they are kept, and may wait.
    """
    if (number(request.headers.get("content-length", "")) or 0) > limit_bytes:
        raise too_large
    body = bytearray()  # not a list of pieces: one that comes byte by byte would take forty times its size
    try:
        async for chunk in body_stream(request):
            if len(body) + len(chunk) > limit_bytes:
                raise too_large
            if take is not None:
                await take(len(chunk))
            body += chunk
    except ClientGone:
        raise SizeInvalid("the body broke off", breaks_off=True) from None
    return bytes(body)


def content_range(request: Request) -> ByteRange | None:
    """Return the range of a chunk by its header: `first-last`. Raises SizeInvalid where it contradicts the length."""
    header = request.headers.get("content-range")
    if header is None:
        return None
    found = _CONTENT_RANGE.match(header.strip())
    if found is None or int(found[2]) < int(found[1]):
        raise SizeInvalid("invalid Content-Range: expected FIRST-LAST, such as 0-1023", {"contentRange": header[:100]})
    span = ByteRange(int(found[1]), int(found[2]) - int(found[1]) + 1)
    declared = request.headers.get("content-length")
    if declared is not None and declared != str(span.length):
        raise SizeInvalid(f"Content-Length {declared[:20]} does not match Content-Range: expected {span.length}")
    return span


def count_parameter(request: Request) -> int | None:
    """The `n` of a paged list, cut to what one page may hold; None when it is absent. Raises Unsupported."""
    text = request.query_params.get("n")
    if text is None:
        return None
    count = number(text)
    if count is None:
        raise Unsupported(f"invalid n {text[:20]!r}: expected a number", 400)
    return min(count, MAX_COUNT)


def media_type(request: Request) -> str | None:
    """The Content-Type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip() or None

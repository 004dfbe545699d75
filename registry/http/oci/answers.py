"""Writing answers: errors, content, lists."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.errors import BlobUnknown, ManifestUnknown, OciError, RangeInvalid


class JsonResponse(Response):
    """A response with a value as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def error_response(error: OciError) -> Response:
    """An error in the form of the OCI distribution specification ("Error codes")."""
    entry = {"code": error.code, "message": error.message}
    if (detail := error.shown_detail) is not None:
        entry["detail"] = detail
    return JsonResponse({"errors": [entry]}, error.status, error_headers(error))


def missing_blob(digest: str) -> BlobUnknown:
    """Return the error of a blob that no repository fact links."""
    return BlobUnknown("there is no such blob in this repository", {"digest": digest})


def missing_manifest(reference: str) -> ManifestUnknown:
    """Return the error of a manifest or a tag that does not exist."""
    return ManifestUnknown("there is no such manifest", {"reference": reference[:200]})


def error_headers(error: OciError) -> dict[str, str]:
    """Return the header fields of an error (RFC 9110: Retry-After, Content-Range of a 416, Connection)."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, RangeInvalid):
        headers["Content-Range"] = f"bytes */{error.size}"
    if error.breaks_off:
        headers["Connection"] = "close"
    return headers


def next_link(path: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """The Link header to the next page of a list (RFC 5988), relative."""
    return {"Link": f'<{path}?{urlencode(parameters)}>; rel="next"'}


def list_page(
    path: str, head: dict[str, str], key: str, names: Sequence[str], count: int
) -> tuple[bytes, dict[str, str]]:
    """A page of up to `count` names, with a link to the next one where there is another name; body and headers."""
    page = names[:count]
    link = next_link(path, {"n": str(count), "last": page[-1]}) if len(names) > count else {}
    return msgspec.json.encode({**head, key: page}), {"Content-Type": "application/json", **link}


class CutOff(Exception):
    """An answer that has begun cannot be completed: the connection must break, so that the client notices."""


class StreamResponse(Response):
    """A body in pieces. A body that fails in the middle is cut off, never ended cleanly. It ends when the client
    disconnects."""

    def __init__(self, pieces: AsyncIterator[bytes | bytearray], status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(b"", status_code, {"Content-Length": "0", **headers})
        if "Content-Length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await anext(self._pieces, None)  # a generator that is not begun would keep what it holds
            await self._pieces.aclose()  # type: ignore[attr-defined]  # all are generators
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            async for piece in self._pieces:
                if leaving.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception as error:
            raise CutOff(str(error)) from error
        finally:
            leaving.cancel()
            await self._pieces.aclose()  # type: ignore[attr-defined]  # all are generators
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

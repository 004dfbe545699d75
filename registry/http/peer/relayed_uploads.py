"""Requests for uploads that come by way of another instance, and whose home is another process of this one."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlencode

from starlette.responses import Response
from starlette.types import Message, Scope

from registry.access.rights import Caller
from registry.http.access.admission import RELAYED_ADMISSION, Admission
from registry.http.oci.uploads import UploadRequest
from registry.http.wire.process_relay import ProcessRelay
from registry.storage.uploads import ClientGone
from registry.telemetry.request_ids import RAW_HEADER, forwarded_headers


async def upload_response(relay: ProcessRelay, slot: int, wanted: UploadRequest, upload_id: str) -> Response:
    """Have the home of an upload answer a request that has come by way of another instance."""
    status, body = 0, bytearray()
    headers: list[tuple[bytes, bytes]] = []

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        else:
            body.extend(message.get("body", b""))

    await relay.relay(slot, _scope(wanted, upload_id), _Receive(wanted.body), send)
    response = Response(bytes(body), status)
    # The instance that answers the client adds the id of the request itself.
    response.raw_headers = [(name, value) for name, value in headers if name != RAW_HEADER]
    return response


class _Receive:
    """The body of a request as an ASGI application receives it."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._is_over = self._is_gone = False

    async def __call__(self) -> Message:
        if self._is_gone:
            return {"type": "http.disconnect"}
        if self._is_over:
            await asyncio.Event().wait()  # for a client that goes away, as servers do
        try:
            piece = await anext(self._body, None)
        except ClientGone:
            self._is_gone = True
            return {"type": "http.disconnect"}
        self._is_over = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}


def _scope(wanted: UploadRequest, upload_id: str) -> Scope:
    path = f"/v2/{wanted.repository}/blobs/uploads/{upload_id}"
    headers = [(b"transfer-encoding", b"chunked")]
    headers += [(name.lower().encode(), value.encode()) for name, value in forwarded_headers()]
    if wanted.span is not None:
        last = wanted.span.first + wanted.span.length - 1
        headers.append((b"content-range", f"{wanted.span.first}-{last}".encode()))
    return {
        "type": "http",
        "http_version": "1.1",
        "method": wanted.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": urlencode({"digest": wanted.digest} if wanted.digest is not None else {}).encode(),
        "headers": headers,
        RELAYED_ADMISSION: Admission(Caller(wanted.account), None, None),
        "client": (wanted.network.partition("/")[0], 0) if wanted.network else None,
    }

"""Tokens that a worker gets from its primary, to have it check what the worker cannot."""

import asyncio

from starlette.types import Message, Scope

from registry.errors import TooManyLogins
from registry.http.oci.paths import TOKEN_PATH
from registry.http.wire.process_relay import ProcessRelay
from registry.storage.upload_homes import PRIMARY_SLOT


async def token_of_primary(
    relay: ProcessRelay, network: str, authorization: bytes = b"", fields: bytes = b""
) -> tuple[int, bytes]:
    """Return status and body of the primary's answer to a request for a token without a scope: with an `Authorization`
    by GET, else with the fields of a form by POST. `network` is that of the client. Raises TooManyLogins and
    ProcessUnreachable."""
    status, wait_s, parts = 0, TooManyLogins.retry_after_s, list[bytes]()
    unsent = [fields] if fields else []

    async def receive() -> Message:
        if unsent:
            return {"type": "http.request", "body": unsent.pop(), "more_body": False}
        return await asyncio.Future()  # a client that stays

    async def send(message: Message) -> None:
        nonlocal status, wait_s
        if message["type"] == "http.response.start":
            status = message["status"]
            wait_s = next((int(value) for name, value in message["headers"] if name == b"retry-after"), wait_s)
        else:
            parts.append(message.get("body", b""))

    await relay.relay(PRIMARY_SLOT, _request(network, authorization, fields), receive, send)
    if status == TooManyLogins.status:
        raise TooManyLogins(retry_after_s=wait_s)
    return status, b"".join(parts)


def _request(network: str, authorization: bytes, fields: bytes) -> Scope:
    form = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"%d" % len(fields))]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST" if fields else "GET",
        "scheme": "http",
        "path": TOKEN_PATH,
        "raw_path": TOKEN_PATH.encode(),
        "query_string": b"",
        "headers": form if fields else [(b"authorization", authorization)],
        "client": (network.partition("/")[0], 0) if network else None,
    }

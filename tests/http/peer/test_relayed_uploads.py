"""Requests for uploads that another instance forwards, and whose home is another process."""

import asyncio

from registry.cluster.rpc.upload_tokens import UploadId
from registry.http.oci.uploads import UploadRequest
from registry.http.peer.relayed_uploads import upload_response
from registry.storage.uploads import ClientGone


class Home:
    """A relay to a process that reads a whole body, and goes on reading until it has answered, as servers do."""

    def __init__(self):
        self.body, self.is_gone = b"", False

    async def relay(self, slot, scope, receive, send):
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            self.body += message["body"]
        if message["type"] == "http.request":
            reading = asyncio.ensure_future(receive())
            await asyncio.wait([reading], timeout=0.05)
            if not reading.done():
                await send({"type": "http.response.start", "status": 202, "headers": [(b"range", b"0-9")]})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                reading.cancel()
                return
        self.is_gone = True


async def pieces(*parts, breaks_off=False):
    for part in parts:
        yield part
    if breaks_off:
        raise ClientGone


def request(body):
    return UploadRequest("PATCH", "app", UploadId("i0", "name", False), None, None, body)


async def test_a_client_that_has_sent_all_of_its_body_has_not_gone():
    home = Home()
    response = await upload_response(home, 1, request(pieces(b"01234", b"56789")), "id")
    assert (response.status_code, home.body, home.is_gone) == (202, b"0123456789", False)


async def test_a_body_that_breaks_off_is_told_to_the_home():
    home = Home()
    await upload_response(home, 1, request(pieces(b"01234", breaks_off=True)), "id")
    assert (home.body, home.is_gone) == (b"01234", True)

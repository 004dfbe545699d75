"""What goes on to another instance can go again as long as nothing is lost of it."""

import asyncio
from types import SimpleNamespace

import pytest

from registry.cluster.rpc.client import SessionRefused
from registry.cluster.rpc.messages import ForwardedUploadResponse
from registry.cluster.rpc.upload_tokens import UploadId
from registry.http.oci.repeatable import REPEATABLE_BYTES, RepeatableBody
from registry.http.oci.uploads import UploadRequest, _forward
from registry.ports import PeerUnreachable


async def body(*pieces):
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


async def all_of(repeatable):
    return [piece async for piece in repeatable.pieces()]


async def test_a_small_body_is_whole_each_time():
    small = RepeatableBody(body(b"one", b"two"))
    await small.read_beginning()
    assert not small.is_sent
    for _ in range(2):
        assert await all_of(small) == [b"onetwo"]
    assert small.is_sent
    assert small.is_repeatable


async def test_a_large_body_is_repeatable_until_its_rest_was_asked_for():
    pieces = [bytes(REPEATABLE_BYTES), b"rest"]
    large = RepeatableBody(body(*pieces))
    await large.read_beginning()
    sending = large.pieces()
    assert await anext(sending) == pieces[0]
    assert large.is_repeatable
    await sending.aclose()
    assert await all_of(large) == pieces
    assert not large.is_repeatable


@pytest.mark.parametrize("has_bytes", [False, True])
async def test_an_owner_that_knows_no_session_from_before_its_restart_is_asked_again(has_bytes):
    given = []

    async def ask(owner, path, question, pieces, answer, timeout_s):
        if not given:
            given.append(None)
            raise SessionRefused("another start")
        given.append([piece async for piece in pieces])
        return ForwardedUploadResponse(202, {}, b"")

    assert (await passed_on(ask, has_bytes)).status_code == 202
    assert given == [None, [b"bytes"]]


async def test_bytes_that_may_be_there_already_are_not_sent_twice():
    async def ask(owner, path, question, pieces, answer, timeout_s):
        assert [piece async for piece in pieces] == [b"bytes"]
        raise PeerUnreachable("gone meanwhile")

    with pytest.raises(PeerUnreachable):
        await passed_on(ask, True)


async def passed_on(ask, has_bytes):
    context = SimpleNamespace(peers=SimpleNamespace(ask_with_content=ask))
    owner = SimpleNamespace(may_be_restarting=True)
    repeatable = RepeatableBody(body(b"bytes"))
    await repeatable.read_beginning()
    asked = UploadRequest("PATCH", "app", UploadId("owner", "upload", has_bytes), None, None, body())
    return await _forward(context, owner, asked, repeatable, "id")

"""Streams that are sent again from their beginning, told from those that continue an upload."""

import random

import pytest

from registry.errors import ChunkOutOfOrder
from registry.storage.resent import COMPARED_BYTES, LEAST_COMPARED_BYTES, refusing_resent

CONTENT = random.Random(7).randbytes(3 * COMPARED_BYTES)


class File:
    """Of a file, what is needed."""

    def __init__(self, content, is_cached=True):
        self._content, self._is_cached = content, is_cached

    def pread(self, offset, size):
        assert size <= COMPARED_BYTES
        return self._content[offset : offset + size]

    def pread_nowait(self, offset, size):
        return self.pread(offset, size) if self._is_cached else None


async def appended(content, there, piece_bytes):
    async def body():
        compared = min(len(content), COMPARED_BYTES + piece_bytes)
        for at in range(0, compared, piece_bytes):
            yield content[at : min(at + piece_bytes, compared)]
        yield content[compared:]  # in one piece: it is passed on as it comes

    file = File(there, is_cached=piece_bytes > 1)
    return b"".join([bytes(piece) async for piece in refusing_resent(body(), file, len(there))])


@pytest.mark.parametrize("there", [LEAST_COMPARED_BYTES, COMPARED_BYTES, 2 * COMPARED_BYTES])
@pytest.mark.parametrize("piece_bytes", [1, 1000, 10**6])
async def test_a_stream_that_begins_as_the_upload_does_is_out_of_order(there, piece_bytes):
    with pytest.raises(ChunkOutOfOrder):
        await appended(CONTENT, CONTENT[:there], piece_bytes)


@pytest.mark.parametrize("there", [1, 7, 1000, COMPARED_BYTES, 2 * COMPARED_BYTES])
@pytest.mark.parametrize("piece_bytes", [1, 1000, 10**6])
async def test_a_stream_that_differs_is_appended_whole(there, piece_bytes):
    last = min(there, COMPARED_BYTES) - 1
    changed = bytes([CONTENT[last] ^ 1])
    for content in (CONTENT[there:], CONTENT[:last] + changed + CONTENT[last + 1 :]):
        assert await appended(content, CONTENT[:there], piece_bytes) == content


@pytest.mark.parametrize("there", [b"a", CONTENT[:1000], CONTENT[: LEAST_COMPARED_BYTES - 1], bytes(COMPARED_BYTES)])
@pytest.mark.parametrize("piece_bytes", [1, 1000, 10**6])
async def test_a_continuation_that_may_begin_as_the_upload_does_by_chance_is_appended(there, piece_bytes):
    """An upload of one byte, continued by a body with the same one first, was refused."""
    assert await appended(there + CONTENT, there, piece_bytes) == there + CONTENT


@pytest.mark.parametrize("piece_bytes", [1, 1000])
async def test_a_body_that_is_too_short_to_be_the_stream_again_is_appended(piece_bytes):
    there = CONTENT[: LEAST_COMPARED_BYTES + 1]
    assert await appended(there[:-1], there, piece_bytes) == there[:-1]
    assert await appended(b"", there, piece_bytes) == b""


async def test_a_body_that_is_refused_is_read_no_further_than_it_is_compared():
    given = 0

    async def body():
        nonlocal given
        while True:
            given += 1024
            yield CONTENT[given - 1024 : given]

    with pytest.raises(ChunkOutOfOrder):
        async for _ in refusing_resent(body(), File(CONTENT[:COMPARED_BYTES]), 10**9):
            pass
    assert given == COMPARED_BYTES

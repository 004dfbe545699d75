"""Large bodies past the parser: the bytes that came, none of those behind them, and memory that is used again only when
nobody looks at it any more."""

import asyncio
import random
import socket
import struct

import pytest
import uvloop

from registry.http.wire import large_body
from registry.http.wire.large_body import (
    INITIAL_BUFFER_BYTES,
    MAX_BUFFER_BYTES,
    MAX_POOLED_BUFFERS,
    BufferPool,
    LargeBody,
)
from registry.http.wire.protocol import BoundedProtocol
from registry.runtime.connections import ConnectionCounts
from registry.runtime.server import Server
from registry.storage.upload_homes import PRIMARY_SLOT, ProcessSlot


class BodyListener:
    """Counts what it is told of."""

    def __init__(self):
        self.on_blob_added = 0

    def on_body_received(self):
        self.on_blob_added += 1


def receive(body, data):
    """As a socket does that has `data`. Answers what is left of it."""
    while data and body.remaining_bytes > 0 and not body.has_full_buffer:
        room = body.get_buffer(-1)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        data = data[size:]
        body.buffer_updated(size)
    return data


@pytest.mark.parametrize("seed", range(20))
def test_all_that_came_is_given_and_nothing_behind_it(seed):
    drawn = random.Random(seed)
    content, behind = drawn.randbytes(drawn.randrange(1, 6 * MAX_BUFFER_BYTES)), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    body, left, given = LargeBody(len(content), BodyListener()), content + behind, b""
    beginning = drawn.randrange(min(len(content), 300_000))
    body.put(left[:beginning])
    left = left[beginning:]
    while body.remaining_bytes > 0 or body.has_data:
        size = drawn.choice((1, 5_000, INITIAL_BUFFER_BYTES, 300_000, 2 * MAX_BUFFER_BYTES))
        left = receive(body, left[:size]) + left[size:]
        while body.has_data and (body.has_full_buffer or drawn.random() < 0.7):
            given += body.take()
    assert given == content and left == behind


def test_no_more_is_taken_in_than_one_piece_before_the_application_has_it():
    body = LargeBody(100 * MAX_BUFFER_BYTES, BodyListener())
    flood = bytes(10 * MAX_BUFFER_BYTES)
    assert len(flood) - len(receive(body, flood)) == INITIAL_BUFFER_BYTES, "little for who has not asked yet"
    sizes = []
    for _ in range(8):
        while body.has_data:
            sizes.append(len(body.take()))
        receive(body, flood)
    assert sizes[-1] == max(sizes) == MAX_BUFFER_BYTES


def test_who_sends_little_holds_little():
    body = LargeBody(100 * MAX_BUFFER_BYTES, BodyListener())
    for _ in range(8):
        receive(body, bytes(2 * MAX_BUFFER_BYTES))
        body.take()
    body.drop()
    for part in (bytes(MAX_BUFFER_BYTES // 2 - 1), b"a few"):
        receive(body, part)
        piece = body.take()
        assert piece == part and type(piece) is bytes, "its own memory"
    assert len(body.get_buffer(-1)) == INITIAL_BUFFER_BYTES


def test_memory_with_a_view_of_any_part_is_not_given_to_anybody_else():
    buffers = BufferPool()
    first, second = buffers.get(MAX_BUFFER_BYTES), buffers.get(MAX_BUFFER_BYTES)
    assert first.obj is not second.obj
    part = first[10:20]
    whole, _ = first.obj, first.release()
    assert buffers.get(MAX_BUFFER_BYTES).obj is not whole
    part.release()
    assert any(buffers.get(MAX_BUFFER_BYTES).obj is whole for _ in range(MAX_POOLED_BUFFERS))


def test_only_so_much_memory_is_kept():
    buffers = BufferPool()
    held = [buffers.get(MAX_BUFFER_BYTES) for _ in range(3 * MAX_POOLED_BUFFERS)]
    assert len({id(view.obj) for view in held}) == 3 * MAX_POOLED_BUFFERS
    assert len(buffers._kept) == MAX_POOLED_BUFFERS


def test_fast_bodies_of_many_connections_share_a_bound_and_go_on_in_small_pieces(monkeypatch):
    buffers, before = BufferPool(), large_body._Buffer.lent_bytes
    monkeypatch.setattr(large_body, "MAX_LENT_BYTES", before + 20 * MAX_BUFFER_BYTES)
    held = [
        buffers.get(size)
        for size in (MAX_BUFFER_BYTES, MAX_BUFFER_BYTES // 2, 2 * INITIAL_BUFFER_BYTES)
        for _ in range(50)
    ]
    sizes = [len(view) for view in held]
    assert sum(size for size in sizes if size > INITIAL_BUFFER_BYTES) <= 20 * MAX_BUFFER_BYTES
    assert sizes.count(MAX_BUFFER_BYTES) == 20 and sizes.count(INITIAL_BUFFER_BYTES) == 130
    del held[MAX_POOLED_BUFFERS:]
    assert len(buffers.get(MAX_BUFFER_BYTES // 2)) == MAX_BUFFER_BYTES // 2, "what is given back is lent again"


class Counting:
    """An application that says how many bytes it was given."""

    def direct(self, method, target, headers):
        return None

    async def __call__(self, scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": b"%7d" % size})


def loaded(app):
    server = Server(app, ConnectionCounts(1), ProcessSlot(PRIMARY_SLOT, 1), None)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    return server


async def accept(server, connection, data):
    """Serve a connection on which `data` comes at once."""
    settings = {"config": server.config, "server_state": server.server_state, "app_state": server.lifespan.state}
    protocol = BoundedProtocol(**settings)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
    protocol.data_received(data)


async def test_nothing_is_kept_of_a_connection_that_is_reset():
    """The timer for its next request did, for 90 seconds."""
    server = loaded(Counting())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    theirs.setblocking(False)
    await accept(server, theirs, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    reader, writer = await asyncio.open_connection(sock=ours)
    await reader.readuntil(b"\r\n\r\n")
    (connection,) = server.server_state.connections
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    while server.server_state.connections:
        await asyncio.sleep(0.01)
    assert connection.timeout_keep_alive_task is None


class Waiting(Counting):
    """An application that reads nothing."""

    async def __call__(self, scope, receive, send):
        await asyncio.sleep(60)


@pytest.mark.parametrize("length", [0, 10**9], ids=["behind a small request", "of a large body"])
def test_little_is_taken_in_of_what_nobody_reads_on_a_connection_with_a_beginning(length):
    """uvloop reads on after a connection is made, whatever was paused in that: all of it was kept in memory."""
    uvloop.run(flood(length))


async def flood(length):
    server, most = loaded(Waiting()), 64 * MAX_BUFFER_BYTES
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    theirs.setblocking(False)
    ours.setblocking(False)
    await accept(server, theirs, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length + bytes(200_000))
    sent, silent = 0, 0
    while sent < most and silent < 20:
        try:
            sent += ours.send(bytes(MAX_BUFFER_BYTES))
            silent = 0
        except BlockingIOError:
            silent += 1
            await asyncio.sleep(0.01)
    ours.close()
    assert sent < most / 2


@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["alone", "with the next request"])
async def test_a_body_that_has_come_whole_with_its_head_is_given_whole(behind):
    server = loaded(Counting())
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    await accept(
        server, theirs, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000) + behind
    )
    reader, writer = await asyncio.open_connection(sock=ours)
    for expected in (b" 300000", b"      0") if behind else (b" 300000",):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(7) == expected
    writer.close()

"""The bound on answers that are being sent: who waits, who is cut off, who is refused; and clients that do not read."""

import asyncio
import contextlib
import json
import socket
import time

import pytest
from starlette.responses import Response

from registry.errors import TooManyAnswers
from registry.http.oci.answers import CutOff
from registry.http.wire import sending
from registry.http.wire.sending import BUDGET_TIMEOUT_S, COUNTED_BYTES, MIN_RESPONSE_S, ResponseMemoryBudget
from simulations.loop import VirtualLoop
from tests.http.admin.test_metrics import value
from tests.support.client import sha256
from tests.support.server import running_server

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
MAX = 10 * COUNTED_BYTES
LARGE = 3 * COUNTED_BYTES
READERS = 48


@pytest.fixture
def play(monkeypatch):
    """Runs a coroutine in virtual time."""
    monkeypatch.setattr(sending, "MAX_BYTES", MAX)
    loop = VirtualLoop()
    yield loop.run_until_complete
    loop.close()


async def read(bound, size, piece_s=0.0, before_s=0.0):
    """Read an answer of some size, with a pause for each piece. Answers the body, and when it ended."""
    received = []

    async def send(message):
        assert bound.held_bytes <= MAX
        received.append(message.get("body", b""))
        await asyncio.sleep(piece_s)

    await asyncio.sleep(before_s)
    await bound.wait_for_room(size)
    response = Response(bytes(size))
    await bound.send(response, {"type": "http"}, None, send)
    return b"".join(received), asyncio.get_running_loop().time()


async def all_of(*readers):
    return await asyncio.gather(*readers, return_exceptions=True)


def test_who_reads_nothing_is_cut_off_for_others_after_a_moment(play):
    bound = ResponseMemoryBudget()
    *stuck, served = play(
        all_of(*(read(bound, LARGE, piece_s=100 + n) for n in range(3)), read(bound, LARGE, before_s=1.0))
    )
    assert [type(one) for one in stuck] == [CutOff, tuple, tuple], "one of them is enough"
    assert served[0] == bytes(LARGE) and MIN_RESPONSE_S <= served[1] < MIN_RESPONSE_S + 1
    assert (bound.held_bytes, bound.cut_off) == (0, 1)


def test_who_reads_slowly_is_served_while_there_is_room(play):
    (served,) = play(all_of(read(ResponseMemoryBudget(), LARGE, piece_s=50)))
    assert served[0] == bytes(LARGE)


def test_who_waits_too_long_is_refused(play):
    bound = ResponseMemoryBudget()
    bound.held_bytes = MAX
    (refused,) = play(all_of(read(bound, LARGE)))
    assert isinstance(refused, TooManyAnswers) and (refused.status, refused.code) == (429, "TOOMANYREQUESTS")


def test_small_answers_never_wait(play):
    bound = ResponseMemoryBudget()
    bound.held_bytes = MAX
    ((body, ended),) = play(all_of(read(bound, COUNTED_BYTES)))
    assert len(body) == COUNTED_BYTES and ended < BUDGET_TIMEOUT_S


def ask_and_read_nothing(server):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(5)
    connection.connect((server.host, server.port))
    connection.sendall(b"GET /v2/app/manifests/large HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection


def test_manifests_that_clients_ask_for_and_do_not_read_are_bounded_and_others_are_served(tmp_path):
    manifest = {"schemaVersion": 2, "manifests": [], "annotations": {"large": "x" * (4 * MIB - 1000)}}
    body = json.dumps(manifest).encode()
    bound = {"registry.http.wire.sending.MAX_BYTES": 16 * MIB}
    with running_server(tmp_path / "data", constants=bound) as server, contextlib.ExitStack() as connections:
        kind = "application/vnd.oci.image.index.v1+json"
        assert server.client.put_manifest("app", "large", body, kind).status == 201
        assert server.client.get("/v2/app/manifests/large").body == body
        before = value(server, "process_resident_memory_bytes")
        for _ in range(READERS):
            connections.enter_context(ask_and_read_nothing(server))
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            grown = value(server, "process_resident_memory_bytes") - before
            assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB for {READERS} readers"
        assert server.client.get(f"/v2/app/manifests/{sha256(body)}").status in (200, 429)
        assert server.client.head("/v2/app/manifests/large").status == 200

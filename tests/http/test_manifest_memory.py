"""Manifests that are being sent take no more memory than is set aside for all of them, and keep nobody waiting."""

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.oci.manifest import MAX_MANIFEST_BYTES
from tests.http.admin.test_metrics import value
from tests.support import images
from tests.support.server import running_server, wait_until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
SENDERS = 48
SENT_BYTES = MAX_MANIFEST_BYTES - 100_000


def send_most(server):
    """A manifest of 4 MiB but for its end, as far as it is taken."""
    connection = socket.socket()
    connection.settimeout(3)
    connection.connect((server.host, server.port))
    head = f"PUT /v2/slow/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_MANIFEST_BYTES}\r\n\r\n"
    with contextlib.suppress(OSError):
        connection.sendall(head.encode() + bytes(SENT_BYTES))
    return connection


def test_many_that_stop_just_before_the_end_are_bounded_and_others_are_served(tmp_path):
    bound = {"registry.storage.manifest_memory.MAX_BYTES": 16 * MIB}
    with running_server(tmp_path / "data", constants=bound) as server, ThreadPoolExecutor(SENDERS) as pool:
        server.client.push("app", "before", images.image("before"))
        before = value(server, "process_resident_memory_bytes")
        connections = list(pool.map(lambda _: send_most(server), range(SENDERS)))
        try:
            grown = value(server, "process_resident_memory_bytes") - before
            assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB for {SENDERS} senders"
            begun = time.monotonic()
            server.client.push("app", "after", images.image("after"))
            assert time.monotonic() - begun < 8
            wait_until(lambda: any(was_sent_away(connection) for connection in connections))
        finally:
            for connection in connections:
                connection.close()


def was_sent_away(connection):
    answer = received(connection)
    return b" 429 " in answer and b"TOOMANYREQUESTS" in answer


def received(connection):
    connection.setblocking(False)
    with contextlib.suppress(OSError):
        return connection.recv(65536)
    return b""

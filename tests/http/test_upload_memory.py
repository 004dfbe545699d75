"""Uploads whose clients stop sending take no more memory than is set aside for all of them, and keep nobody waiting."""

import random
import socket
import time

import pytest

from tests.http.admin.test_metrics import value
from tests.support.server import running_server, wait_until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
CLIENTS = 64
SENT_BYTES = 3 * MIB - 1
BOUNDS = {"registry.storage.upload_memory.MAX_BYTES": 8 * MIB, "registry.http.wire.large_body.MAX_LENT_BYTES": 16 * MIB}


def send_most(server, location):
    """A PATCH of 4 MiB that stops just before the third one is whole."""
    connection = socket.create_connection((server.host, server.port))
    connection.settimeout(60)
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 * MIB}\r\n\r\n"
    connection.sendall(head.encode() + bytes(SENT_BYTES))
    return connection


def test_many_uploads_that_stop_in_the_middle_are_bounded_in_memory_and_others_are_served(tmp_path):
    with running_server(tmp_path / "data", constants=BOUNDS) as server:
        server.client.push_blob("app", random.Random(1).randbytes(4 * MIB))
        before = value(server, "process_resident_memory_bytes")
        connections = [send_most(server, server.client.begin_upload("app")) for _ in range(CLIENTS)]
        try:
            wait_until(lambda: value(server, "concord_upload_bytes") == CLIENTS * SENT_BYTES)
            grown = value(server, "process_resident_memory_bytes") - before
            assert grown < 40 * MIB, f"{grown / MIB:.0f} MiB for {CLIENTS} uploads"
            begun = time.monotonic()
            server.client.push_blob("app", random.Random(2).randbytes(4 * MIB))
            assert time.monotonic() - begun < 8
        finally:
            for connection in connections:
                connection.close()

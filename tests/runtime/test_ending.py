"""What clients see of an instance that ends: an answer, or that nobody listens. A balancer asks another instance then,
which it may not where a request was sent and nothing came back."""

import socket
import threading
import time
from collections import Counter

import pytest

from tests.support.server import Server as Instance
from tests.support.server import running_server

CLIENTS = 6
BEFORE_S = 0.3
BEGIN = b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: registry\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(params=["1", "2"], ids=["one process", "with a reader"])
def server(request, tmp_path):
    with running_server(tmp_path / "data", workers=request.param, max_uploads="1000000") as running:
        yield running


@pytest.mark.parametrize("kept", [False, True], ids=["a connection each", "kept connections"])
def test_whoever_is_let_in_is_answered_to_the_end(server, kept):
    """An instance that ended reset connections that it had not accepted yet, and closed kept ones on which a request
    was on its way: nginx may not send an upload elsewhere then, and docker's push ended with 502 (found by a rolling
    restart behind nginx)."""
    seen: Counter[str] = Counter()
    clients = [threading.Thread(target=ask_until_refused, args=(server, kept, seen)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(BEFORE_S)
    assert server.stop() == 0
    for client in clients:
        client.join()
    assert seen["202"] > 10 * CLIENTS and seen["refused"] == CLIENTS, seen
    # Between the last look at who has connected and the end are microseconds, in which one may come.
    assert seen["not answered"] <= 1 and set(seen) <= {"202", "refused", "not answered"}, seen
    assert seen["not answered on a kept connection"] == 0


def ask_until_refused(server: Instance, kept: bool, seen: Counter[str]) -> None:
    connection, used = None, False
    while True:
        try:
            if connection is None:
                connection, used = socket.create_connection((server.host, server.port), timeout=10), False
        except ConnectionRefusedError:
            seen["refused"] += 1
            return
        except ConnectionResetError:
            continue
        try:
            connection.sendall(BEGIN)
            answer = connection.recv(65536)
        except ConnectionResetError:
            answer = b""
        is_answered = answer.startswith(b"HTTP/1.1 ")
        unanswered = "not answered on a kept connection" if used else "not answered"
        seen[answer[9:12].decode() if is_answered else unanswered] += 1
        used = True
        if not kept or not is_answered or b"\r\nconnection: close\r\n" in answer:
            connection.close()
            connection = None

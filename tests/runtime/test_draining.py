"""What whoever stops an instance gives it: uploads and requests that can end within `--drain-s` do, the others are cut
off, and the process has ended by itself before it is killed."""

import http.client
import os
import signal
import socket
import time

import pytest

from registry.runtime.drain import EXIT_TIMEOUT_S
from registry.telemetry.events import LogEvent
from tests.support.client import sha256, with_digest
from tests.support.logs import log_lines
from tests.support.server import running_server, wait_until

CONTENT = os.urandom(3_000_000)
HALF = len(CONTENT) // 2
DRAIN_S = 1.5
BUSY_S = 10.0
"""What a busy machine takes longer; an instance that does not end by itself never does."""
BEFORE_KILL_S = DRAIN_S + EXIT_TIMEOUT_S + BUSY_S


@pytest.fixture(params=["1", "2", "3"], ids=["one process", "with a worker", "with two workers"])
def server(request, tmp_path):
    with running_server(tmp_path / "data", workers=request.param, drain_s=str(DRAIN_S)) as running:
        yield running


def begin_patch(server, location):
    """A connection on which half of an upload has gone out."""
    connection = socket.create_connection((server.host, server.port), timeout=30)
    before = server.upload_bytes()
    head = f"PATCH {location} HTTP/1.1\r\nHost: registry\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
    connection.sendall(head.encode() + CONTENT[:HALF])
    wait_until(lambda: server.upload_bytes() > before)
    return connection


def answer_on(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def told_to_end(server):
    """Send SIGTERM, and wait until it is not ready."""
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: server.client.get("/readyz").status == 503)


def seconds_to_end(server, begun):
    assert server.process.wait(30) == 0
    server.process = None
    return time.monotonic() - begun


def errors(server):
    """What went wrong by its log. Whatever is no line of the log is a trace that a process has printed."""
    text = server.log.read_text()
    lines = log_lines(text)
    return [line for line in lines if line["level"] == "error"] or text.count("\n") - len(lines)


def test_an_upload_that_does_not_end_in_time_is_answered_503_and_goes_on_after_the_restart(server):
    location = server.client.begin_upload("app")
    with begin_patch(server, location) as connection:
        begun = time.monotonic()
        told_to_end(server)
        answer = answer_on(connection)
        assert (answer.status, answer.headers["Connection"], answer.headers["Retry-After"]) == (503, "close", "2")
        assert seconds_to_end(server, begun) < BEFORE_KILL_S
    assert server.logged(LogEvent.REQUESTS_ABORTED, requests=1, drain_s=DRAIN_S)
    assert not errors(server)
    server.start()
    kept = server.client.get(location)
    assert kept.status == 204
    first = int(kept.headers["Range"].partition("-")[2]) + 1
    assert 0 < first <= HALF
    rest = {"Content-Range": f"{first}-{len(CONTENT) - 1}"}
    patched = server.client.request("PATCH", location, CONTENT[first:], rest)
    assert patched.status == 202, patched
    finished = server.client.request("PUT", with_digest(patched.headers["Location"], sha256(CONTENT)), b"")
    assert finished.status == 201


def test_what_can_end_in_time_does_while_something_else_cannot(server):
    slow, quick = server.client.begin_upload("app"), server.client.begin_upload("app")
    with begin_patch(server, slow) as first, begin_patch(server, quick) as second:
        begun = time.monotonic()
        told_to_end(server)
        second.sendall(CONTENT[HALF:])
        patched = answer_on(second)
        assert patched.status == 202
        finished = server.client.request("PUT", with_digest(patched.headers["Location"], sha256(CONTENT)), b"")
        assert finished.status == 201
        assert server.client.head(f"/v2/app/blobs/{sha256(CONTENT)}").status == 200
        assert answer_on(first).status == 503
        assert seconds_to_end(server, begun) < BEFORE_KILL_S
    server.start()
    assert server.client.get(f"/v2/app/blobs/{sha256(CONTENT)}").body == CONTENT


def test_a_drain_under_constant_pushes_ends_when_those_that_were_under_way_have(tmp_path):
    """New uploads are refused after a moment, in the way that a balancer goes on from."""
    constants = {"registry.runtime.drain.ACCEPT_UPLOADS_S": 1.0}
    with running_server(tmp_path / "data", drain_s="60", constants=constants) as server:
        locations = [server.client.begin_upload("app")]
        connections = [begin_patch(server, locations[0])]
        begun = time.monotonic()
        told_to_end(server)
        while (answer := server.client.request("POST", "/v2/app/blobs/uploads/", b"")).status == 202:
            connections.append(begin_patch(server, answer.headers["Location"]))
            assert time.monotonic() < begun + 10
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert len(connections) > 1, "for a moment they are begun"
        for connection in connections:
            connection.sendall(CONTENT[HALF:])
            patched = answer_on(connection)
            assert patched.status == 202
            finished = server.client.request("PUT", with_digest(patched.headers["Location"], sha256(CONTENT)), b"")
            assert finished.status == 201
            connection.close()
        assert seconds_to_end(server, begun) < 30


def test_a_pull_whose_client_does_not_read_is_cut_off_in_time(server):
    large = os.urandom(40_000_000)  # more than sockets take
    server.client.push_blob("app", large)
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(f"GET /v2/app/blobs/{sha256(large)} HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
        assert connection.recv(1000)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert seconds_to_end(server, begun) < BEFORE_KILL_S
    assert not errors(server)


def test_the_log_says_at_the_signal_how_long_the_end_may_take(server):
    location = server.client.begin_upload("app")
    with begin_patch(server, location):
        # A worker reports its requests within a second; the request for the metrics is one itself.
        wait_until(lambda: b"\nconcord_requests_in_flight 2.0\n" in server.client.get("/metrics").body)
        begun = time.monotonic()
        told_to_end(server)
        (line,) = server.logged(LogEvent.DRAIN_STARTED)
        assert (line["requests"], line["drain_s"], line["ending_s"]) == (1, DRAIN_S, DRAIN_S + EXIT_TIMEOUT_S)
        seconds_to_end(server, begun)


def test_an_instance_without_requests_ends_at_once(server):
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert seconds_to_end(server, begun) < EXIT_TIMEOUT_S + BUSY_S

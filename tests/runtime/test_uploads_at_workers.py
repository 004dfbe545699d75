"""Uploads whose home is one process of several, while others stand still or die."""

import contextlib
import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from registry.storage.upload_homes import ProcessSlot
from registry.telemetry.events import LogEvent
from tests.support.client import Client, sha256, with_digest
from tests.support.processes import children, owner_of, standing_still, wait_for_children
from tests.support.server import Server, running_cluster, running_server, wait_until

CONTENT = os.urandom(2_500_000)
PATIENT_S = 20


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path / "data", workers="2") as running:
        wait_for_children(running, 2)
        yield running


def worker_of(server: Server) -> int:
    """Return the only worker."""
    owner = owner_of(server)
    (worker,) = (pid for pid in wait_for_children(server, 2) if pid != owner)
    return worker


def home_of(location: str, processes: int = 2) -> int:
    return ProcessSlot(0, processes).home_of(location.rpartition("/")[2].partition(".")[0])


def file_of(server: Server, location: str) -> Path:
    return server.data / "uploads" / location.rpartition("/")[2].partition(".")[0]


def begun_at(server: Server, slot: int, processes: int = 2) -> str:
    """Begin an upload whose home is a slot. The primary begins those for which it has looked for a blob to mount."""
    query = "" if slot else f"?mount={sha256(b'nowhere')}&from=app"

    def begun() -> str:
        location = server.client.begin_upload("app", query)
        return location if home_of(location, processes) == slot else ""

    return wait_until(begun, every_s=0)


def connected(server: Server) -> socket.socket:
    return socket.create_connection((server.host, server.port), timeout=PATIENT_S)


def head(method: str, path: str, content: bytes) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()


@contextlib.contextmanager
def half_sent(server: Server, location: str, content: bytes = CONTENT):
    """Yield a connection on which half of the content is sent, and received by the upload's home."""
    before = server.upload_bytes()
    with connected(server) as connection:
        connection.sendall(head("PATCH", location, content) + content[: len(content) // 2])
        wait_until(lambda: server.upload_bytes() > before)
        yield connection


def received(connection: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1 << 16)
    return b""


@pytest.mark.parametrize("home", [0, 1], ids=["home at the primary", "home at the worker"])
def test_requests_that_no_home_answers_are_not_relayed_in_circles(server, home):
    """Two processes relayed a request to each other until they had no descriptors left."""
    location = begun_at(server, home)
    for method, more, status in (
        ("PATCH", "?ns=other.example", 404),
        ("GET", "?ns=other.example", 404),
        ("POST", "", 405),
        ("OPTIONS", "", 405),
        ("GET", "", 204),
    ):
        for _ in range(4):
            answer = Client(server.host, server.port, PATIENT_S).request(method, location + more)
            assert answer.status == status, (method, more, answer)


@pytest.mark.parametrize("home", [0, 1], ids=["home at the primary", "home at the worker"])
def test_a_process_that_dies_has_the_requests_for_its_uploads_answered_503(server, home):
    answers = []
    for _ in range(4):
        location = begun_at(server, home)
        with half_sent(server, location) as connection:
            dies = (owner_of(server), worker_of(server))[home]
            os.kill(dies, signal.SIGKILL)
            answers.append(received(connection))
        wait_until(lambda dead=dies: dead not in children(server))
        wait_for_children(server, 2)
        server.wait_ready()
    for answer in answers:
        assert answer == b"" or answer.startswith(b"HTTP/1.1 503"), answer
    assert not server.logged(LogEvent.REQUEST_FAILED)
    assert "Traceback" not in server.log.read_text()
    location = server.client.request("PATCH", begun_at(server, home), CONTENT).headers["Location"]
    assert server.client.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201


def test_the_body_of_an_upload_is_received_while_the_primary_stands_still(server):
    location = begun_at(server, 1)
    primary = owner_of(server)
    with standing_still(primary), connected(server) as connection:
        connection.sendall(head("PUT", with_digest(location, sha256(CONTENT)), CONTENT) + CONTENT)
        file = file_of(server, location)
        wait_until(lambda: file.exists() and file.stat().st_size == len(CONTENT))
        os.kill(primary, signal.SIGCONT)
        assert received(connection).startswith(b"HTTP/1.1 201")
    assert server.client.get(f"/v2/app/blobs/{sha256(CONTENT)}").body == CONTENT


def test_an_upload_at_a_worker_that_dies_goes_on_from_what_is_durable(server):
    first = server.client.request("PATCH", begun_at(server, 1), CONTENT[:1_000_000])
    assert first.status == 202
    with half_sent(server, first.headers["Location"], os.urandom(500_000)) as connection:
        os.kill(worker_of(server), signal.SIGKILL)
        received(connection)
    wait_for_children(server, 2)
    location = first.headers["Location"]
    at = server.client.get(location)
    assert (at.status, at.headers["Range"]) == (204, "0-999999")
    rest = {"Content-Range": f"1000000-{len(CONTENT) - 1}"}
    patched = server.client.request("PATCH", location, CONTENT[1_000_000:], rest)
    assert patched.status == 202, patched
    assert server.client.request("PUT", with_digest(patched.headers["Location"], sha256(CONTENT)), b"").status == 201
    assert server.client.get(f"/v2/app/blobs/{sha256(CONTENT)}").body == CONTENT


def test_a_primary_that_dies_before_it_commits_leaves_the_commit_to_its_successor(server):
    """The worker has synced, and its message waits: the client is answered 201 all the same."""
    location, primary = begun_at(server, 1), owner_of(server)
    content = os.urandom(300_000)
    os.kill(primary, signal.SIGSTOP)
    with connected(server) as connection:
        connection.sendall(head("PUT", with_digest(location, sha256(content)), content) + content)
        file = file_of(server, location)
        wait_until(lambda: file.exists() and file.stat().st_size == len(content))
        os.kill(primary, signal.SIGKILL)
        assert received(connection).startswith(b"HTTP/1.1 201")
    assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


def test_a_new_worker_removes_no_files_of_other_processes(server):
    location = begun_at(server, 0)
    with contextlib.ExitStack() as stack:
        with standing_still(worker_of(server)):  # so that the primary has the connection
            connection = stack.enter_context(half_sent(server, location))
        os.kill(worker_of(server), signal.SIGKILL)
        time.sleep(1)
        wait_for_children(server, 2)
        assert file_of(server, location).exists()
        connection.sendall(CONTENT[len(CONTENT) // 2 :])
        assert received(connection).startswith(b"HTTP/1.1 202")


def in_flight(server: Server) -> float:
    (line,) = re.findall(
        r"^concord_requests_in_flight (\S+)$", server.client.get("/metrics").body.decode(), re.MULTILINE
    )
    return float(line)


def test_requests_at_workers_are_counted_though_processes_die(server):
    """Workers reported changes: a new primary counted less than none, and those of a dead worker stayed."""
    with half_sent(server, begun_at(server, 1)):
        wait_until(lambda: in_flight(server) == 2)
        os.kill(owner_of(server), signal.SIGKILL)
        wait_until(lambda: answers(server))
        wait_until(lambda: in_flight(server) == 2)
    wait_until(lambda: in_flight(server) == 1)
    time.sleep(1.5)  # longer than between two reports
    assert in_flight(server) == 1, "the request for the metrics"
    with half_sent(server, begun_at(server, 1)):
        wait_until(lambda: in_flight(server) == 2)
        os.kill(worker_of(server), signal.SIGKILL)
        wait_until(lambda: in_flight(server) == 1)


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.client.get("/readyz").status == 200
    return False


def test_a_late_commit_of_a_dead_worker_never_moves_what_its_successor_receives(server):
    """The message of a dead worker waits at the primary. Its successor, which found an upload without bytes, received
    other ones into the file that the message names."""
    location, primary = begun_at(server, 1), owner_of(server)
    digest = sha256(CONTENT)
    with standing_still(primary), contextlib.ExitStack() as stack:
        connection = stack.enter_context(connected(server))
        connection.sendall(head("PUT", with_digest(location, digest), CONTENT) + CONTENT)
        file = file_of(server, location)
        wait_until(lambda: file.exists() and file.stat().st_size == len(CONTENT))
        time.sleep(0.5)  # until it has synced the file, and sent the message
        (worker,) = (pid for pid in children(server) if pid != primary)
        os.kill(worker, signal.SIGKILL)
        received(connection)
        wait_until(lambda: worker not in children(server))
        wait_for_children(server, 2)
        again = stack.enter_context(connected(server))
        again.sendall(head("PATCH", location, bytes(1_000_000)) + bytes(500_000))
        time.sleep(1)
        os.kill(primary, signal.SIGCONT)
        again.sendall(bytes(500_000))
        assert received(again).startswith(b"HTTP/1.1 404"), "the upload has ended"
    assert server.client.get(f"/v2/app/blobs/{digest}").body == CONTENT


@pytest.mark.slow
def test_no_acknowledged_push_is_lost_whichever_process_is_killed(tmp_path):
    with running_server(tmp_path / "data", workers="3") as server:
        acknowledged, until = [], time.monotonic() + 8
        with ThreadPoolExecutor(5) as pool:
            pushing = [pool.submit(push_until, server, number, until) for number in range(5)]
            for number in range(6):
                time.sleep(1)
                found = wait_for_children(server, 3)
                os.kill(found[number % len(found)], signal.SIGKILL)
            acknowledged = [pushed for future in pushing for pushed in future.result()]
        wait_until(lambda: answers(server))
        assert len(acknowledged) > 20
        for repository, digest, content in acknowledged:
            assert server.client.get(f"/v2/{repository}/blobs/{digest}").body == content


def push_until(server: Server, number: int, until: float) -> list[tuple[str, str, bytes]]:
    """Push blobs one after the other, each by three requests, and return those that were acknowledged."""
    done, repository = [], f"r{number}"
    while time.monotonic() < until:
        content = os.urandom(200_000)
        with contextlib.suppress(OSError, AssertionError, HTTPException):
            done.append(
                (repository, Client(server.host, server.port, PATIENT_S).push_blob(repository, content), content)
            )
    return done


def test_an_upload_whose_home_is_a_worker_goes_on_by_way_of_another_instance(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], workers="2") as cluster:
        for server in cluster.servers:
            wait_for_children(server, 2)
        for home in (0, 1):
            content, location = os.urandom(1_500_000), begun_at(cluster[0], home)
            elsewhere = cluster[1].client
            patched = elsewhere.request("PATCH", location, content[:1_000_000], {"X-Request-Id": "forwarded-1"})
            assert (patched.status, patched.headers["Range"]) == (202, "0-999999"), patched
            assert patched.headers.get_all("X-Request-Id") == ["forwarded-1"]
            rest = {"Content-Range": "1000000-1499999"}
            patched = elsewhere.request("PATCH", patched.headers["Location"], iter([content[1_000_000:]]), rest)
            assert patched.status == 202, patched
            at = elsewhere.get(patched.headers["Location"])
            assert (at.status, at.headers["Range"]) == (204, "0-1499999"), at
            wrong = elsewhere.request("PUT", with_digest(patched.headers["Location"], sha256(b"other")), b"")
            assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")
            done = elsewhere.request("PUT", with_digest(patched.headers["Location"], sha256(content)), b"")
            assert done.status == 201, done
            assert cluster[0].client.get(f"/v2/app/blobs/{sha256(content)}").body == content
            gone = begun_at(cluster[0], home)
            assert elsewhere.delete(gone).status == 204


def test_the_number_of_uploads_is_bounded_over_all_processes(tmp_path):
    with running_server(tmp_path / "data", workers="3", max_uploads="6") as server:
        wait_for_children(server, 3)
        locations = [begun_at(server, slot, 3) for slot in (1, 2, 0) for _ in range(5)]
        answers = [server.client.request("PATCH", location, b"some") for location in locations]
        assert {answer.status for answer in answers} <= {202, 429}
        found = server.client.get("/metrics").body.decode()
        (count,) = re.findall(r"^concord_uploads (\S+)$", found, re.MULTILINE)
        assert 6 <= float(count) <= 10, "each process may have its share in any case"
        assert server.upload_bytes() == 4 * float(count)


def test_a_blob_is_mounted_by_way_of_a_worker(server):
    digest = server.client.push_blob("from", CONTENT)
    with standing_still(owner_of(server)), connected(server) as connection:  # so that the worker has the connection
        path = f"/v2/to/blobs/uploads/?mount={digest}&from=from"
        connection.sendall(head("POST", path, b""))
        time.sleep(0.2)
        os.kill(owner_of(server), signal.SIGCONT)
        assert received(connection).startswith(b"HTTP/1.1 201")
    assert server.client.head(f"/v2/to/blobs/{digest}").status == 200


def test_pushes_that_workers_refuse_are_counted(server):
    location = begun_at(server, 1)
    assert server.client.request("PUT", with_digest(location, sha256(b"other")), CONTENT).status == 400
    expected = 'concord_pushes_refused_total{reason="digest-invalid"} 1.0'
    wait_until(lambda: expected in server.client.get("/metrics").body.decode().splitlines())

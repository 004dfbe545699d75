"""Several processes on one data directory: any of them serves any request, and one takes another's place."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.cluster.membership.members import HEARTBEAT_S
from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.client import Client, sha256, with_digest
from tests.support.processes import alive, children, owner_of, standing_still, wait_for_children
from tests.support.server import Server, running_cluster, running_server, wait_until

IMAGE = images.image("workers", layers=2, layer_bytes=100_000)
LARGE = b"0123456789abcdef" * 200_000
BOTH = 40
"""So many connections that each process gets some; where it matters that readers do, the owner stands still."""


@pytest.fixture
def server(tmp_path):
    with running_server(tmp_path / "data", workers="2") as running:
        wait_for_children(running, 2)
        yield running


def test_what_is_here_is_read_while_the_owner_stands_still(server):
    server.client.push("app", "v1", IMAGE)
    large = server.client.push_blob("app", LARGE)
    with standing_still(owner_of(server)):
        client = Client(server.host, server.port, timeout_s=5)
        for _ in range(5):
            assert client.pull("app", "v1") == IMAGE.body
            assert client.get("/v2/app/tags/list?n=5").json()["tags"] == ["v1"]
            assert client.get(f"/v2/app/blobs/{large}").body == LARGE
            part = client.get(f"/v2/app/blobs/{large}", Range="bytes=70-2000000")
            assert (part.status, part.body) == (206, LARGE[70:2_000_001])


def test_everything_else_waits_for_the_owner_and_is_answered(server):
    server.client.push("app", "v1", IMAGE)
    asked = [
        ("GET", "/readyz", 200),
        ("HEAD", f"/v2/app/blobs/{sha256(IMAGE.blobs[0])}", 200),
        ("GET", "/v2/app/tags/list", 200),
        ("DELETE", "/v2/app/manifests/none", 404),
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        with standing_still(owner_of(server)):
            answers = [pool.submit(server.client.request, method, path) for method, path, _ in asked]
            time.sleep(0.3)
            assert not any(answer.done() for answer in answers)
        assert [answer.result(10).status for answer in answers] == [status for _, _, status in asked]


def test_a_write_is_visible_in_all_processes_at_once(server):
    for number in range(BOTH):
        image = images.image(f"shown-{number}", layers=1, layer_bytes=100)
        server.client.push("app", "moving", image)
        for _ in range(4):
            assert server.client.get("/v2/app/manifests/moving").body == image.body


def test_a_body_goes_along_with_its_connection(server):
    """In one piece with the head, in several, chunked, and announced by Expect."""
    for number in range(BOTH):
        content = bytes([number]) * 150_000
        path = f"/v2/app/blobs/uploads/?digest={sha256(content)}"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
        )
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            if number % 2:
                connection.sendall(head + content)
            else:
                connection.sendall(head)
                time.sleep(0.01)
                connection.sendall(content)
            assert connection.recv(100).startswith(b"HTTP/1.1 201")
        chunked = server.client.request("POST", path, iter([content[:10], content[10:]]))
        assert chunked.status == 201
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", "-H", "Expect: 100-continue"]
    for _ in range(10):
        url = f"{server.url}/v2/app/blobs/uploads/?digest={sha256(LARGE)}"
        run = subprocess.run([*command, "--data-binary", "@-", url], input=LARGE, capture_output=True, check=True)
        assert run.stdout == b"201"


def test_requests_sent_at_once_are_answered_in_order_across_a_handover(server):
    server.client.push("app", "v1", IMAGE)
    layer = IMAGE.blobs[1]
    manifest = b"GET /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
    blob = f"GET /v2/app/blobs/{sha256(layer)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    base = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    expected = [IMAGE.body, layer, IMAGE.body, b"{}", layer, IMAGE.body]
    for number in range(BOTH):
        stray = b"\r\n" * (number % 3)
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(stray.join([b"", manifest, blob, manifest, base, blob, manifest]))
            reader = connection.makefile("rb")
            assert [body(reader) for _ in expected] == expected


def body(reader, begun=False):
    assert reader.readline().startswith(b"00" if begun else b"HTTP/1.1 200")
    length = 0
    while (line := reader.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return reader.read(length)


def test_another_takes_the_owners_place_within_a_second_and_reads_go_on(server):
    server.client.push("app", "v1", IMAGE)
    for number in range(3):
        owner = owner_of(server)
        os.kill(owner, signal.SIGKILL)
        killed = time.monotonic()
        while server.client.get("/v2/app/manifests/v1").body == IMAGE.body:
            with contextlib.suppress(OSError):
                client = Client(server.host, server.port, 5)
                if client.put_manifest("app", f"n{number}", IMAGE.body, IMAGE.media_type).status == 201:
                    break
        assert time.monotonic() - killed < 5.0, "within a second, where nothing else runs"
        assert not alive(owner) and len(wait_for_children(server, 2)) == 2
    assert server.client.tags("app") == ["n0", "n1", "n2", "v1"]
    assert len(server.logged(LogEvent.PROCESS_DIED, signal=int(signal.SIGKILL))) == 3


@pytest.mark.parametrize("sites", [["eu", "us"], ["eu", "eu"]], ids=["no-neighbour", "neighbour-gone"])
def test_who_takes_the_owners_place_waits_for_neighbours_for_a_moment_only(tmp_path, sites):
    constants = {"registry.cluster.membership.join.JOIN_ALONE_S": 5.0}
    with running_cluster(tmp_path, sites, workers="2", constants=constants) as cluster:
        wait_for_children(cluster[0], 2)
        time.sleep(HEARTBEAT_S)  # so that the neighbour is known after a restart, too
        cluster[1].kill()
        os.kill(owner_of(cluster[0]), signal.SIGKILL)
        killed = time.monotonic()
        cluster[0].client.push("app", "v1", IMAGE)
        assert time.monotonic() - killed < 4.0


def test_no_acknowledged_push_is_lost_when_owners_are_killed(server):
    acknowledged = []
    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pushing = [pool.submit(push_some, server, f"r{number}-{of}") for of in range(4)]
            time.sleep(0.25)
            os.kill(owner_of(server), signal.SIGKILL)
            acknowledged += [tag for of in pushing for tag in of.result()]
            wait_for_children(server, 2)
            wait_until(lambda: answers(server))
    assert len(acknowledged) > 20
    for repository, tag, content in acknowledged:
        assert server.client.pull(repository, tag) == content


def push_some(server: Server, repository: str) -> list[tuple[str, str, bytes]]:
    done = []
    with contextlib.suppress(OSError, AssertionError):
        for number in range(100):
            image = images.image(f"{repository}-{number}", layers=1, layer_bytes=1000)
            server.client.push(repository, f"v{number}", image)
            done.append((repository, f"v{number}", image.body))
    return done


def answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        return server.client.get("/readyz").status == 200
    return False


def test_a_reader_that_dies_is_replaced(server):
    server.client.push("app", "v1", IMAGE)
    owner = owner_of(server)
    (reader,) = (pid for pid in children(server) if pid != owner)
    os.kill(reader, signal.SIGKILL)
    wait_until(lambda: not alive(reader) and len(children(server)) == 2)
    assert owner_of(server) == owner
    with standing_still(owner):
        wait_until(lambda: Client(server.host, server.port, 1).get("/v2/app/manifests/v1").body == IMAGE.body)


def test_all_end_with_the_supervisor_and_the_next_start_needs_no_pause(server):
    server.client.push("app", "v1", IMAGE)
    begun = children(server)
    server.kill()
    server.start()
    assert not any(alive(pid) for pid in begun)
    assert server.client.pull("app", "v1") == IMAGE.body


def test_a_supervisor_that_was_stopped_and_goes_on_is_told_nothing_by_that(tmp_path):
    """An instance of several processes ended when its supervisor was stopped and went on (SIGSTOP, SIGCONT, a
    debugger): Python's `sigtimedwait` then reports a signal that has not come (found by a profiler)."""
    pause_s = 0.2
    constants = {"registry.runtime.supervisor.MAX_BACKOFF_S": pause_s}
    with running_server(tmp_path / "data", workers="2", constants=constants) as server:
        wait_for_children(server, 2)
        for _ in range(5):
            with standing_still(server.process.pid):
                time.sleep(2 * pause_s)
            time.sleep(pause_s)
        assert server.process.poll() is None and server.client.get("/readyz").status == 200
        os.kill(children(server)[1], signal.SIGKILL)
        wait_for_children(server, 2)


@contextlib.contextmanager
def uploading(server: Server) -> Iterator[socket.socket]:
    """The first half of a chunk is at the owner."""
    location = server.client.begin_upload("app")
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234".encode())
        wait_until(lambda: server.upload_bytes() == 5)
        yield connection


@contextlib.contextmanager
def downloading(server: Server, content: bytes) -> Iterator[socket.socket]:
    """A reader is sending content, of which nothing has been taken but the beginning of its head."""
    digest = server.client.push_blob("app", content)
    with standing_still(owner_of(server)):
        connection = socket.create_connection((server.host, server.port), timeout=20)
        connection.sendall(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(10) == b"HTTP/1.1 2"
    with connection:
        yield connection


def not_ready(server: Server) -> bool:
    return server.client.get("/readyz").status == 503


@pytest.mark.parametrize("everyone", [False, True], ids=["the supervisor", "the whole group"])
def test_a_signal_ends_all_in_order(server, everyone):
    server.client.push("app", "v1", IMAGE)
    begun = children(server)
    with uploading(server) as connection:
        for pid in (server.process.pid, *(begun if everyone else ())):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not_ready(server))
        assert server.client.pull("app", "v1") == IMAGE.body
        connection.sendall(b"56789")
        assert connection.recv(100).startswith(b"HTTP/1.1 202")
    assert server.process.wait(20) == 0
    server.process = None
    assert not any(alive(pid) for pid in begun)
    assert not server.logged(LogEvent.PROCESS_DIED)
    assert not (server.data / "catalog.sqlite-wal").exists(), "the last one to close the catalog tidies up"


def test_a_download_at_a_reader_is_finished_while_all_end(server):
    content = LARGE * 8
    with downloading(server, content) as connection:
        owner = owner_of(server)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not alive(owner))
        assert body(connection.makefile("rb"), begun=True) == content
    assert server.process.wait(20) == 0
    server.process = None


def test_a_second_signal_waits_for_nobody(server):
    with uploading(server), downloading(server, LARGE * 8):
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not_ready(server))
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 0
        server.process = None


def test_a_start_that_cannot_be_is_said_once(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "catalog.sqlite").write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    server = Server(data, workers="2").start(wait=False)
    assert server.process.wait(20) == 2
    server.process = None
    (line,) = server.logged(LogEvent.START_FAILED)
    assert line["reason"] == "catalog-corrupt"


def test_an_instance_that_has_left_ends_with_all_its_processes(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], workers="2") as cluster:
        cluster[0].client.push("app", "v1", IMAGE)
        cluster.wait_agreed()
        begun = children(cluster[0])
        assert cluster[0].client.request("POST", "/_concord/leave", b"{}").status in (200, 202)
        assert cluster[0].process.wait(30) == 0
        cluster[0].process = None
        assert not any(alive(pid) for pid in begun)
        assert cluster[1].client.pull("app", "v1") == IMAGE.body


def test_the_owner_learns_what_readers_have_served(server):
    server.client.push("app", "v1", IMAGE)
    with standing_still(owner_of(server)):
        for _ in range(7):
            server.client.get("/v2/app/manifests/v1")

    def counted():
        said = server.client.get("/metrics").body.decode()
        line = 'concord_requests_total{method="GET",route="/v2/<name>/manifests/<reference>",status="200"} 7.0'
        return line in said.splitlines()

    wait_until(counted)


def test_content_that_a_reader_finds_damaged_is_mended(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], workers="2") as cluster:
        for server in cluster.servers:
            wait_for_children(server, 2)
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        assert cluster[1].client.get(f"/v2/app/blobs/{digest}").body == LARGE
        file = cluster[1].data / "blobs" / "sha256" / digest[7:9] / digest[7:]
        wait_until(lambda: cluster[1].status()["blobs"] == 1)  # before its commit, a worker relays to the primary
        os.truncate(file, 1_000_000)
        received, owner = b"", owner_of(cluster[1])
        while not received.startswith(b"HTTP/1.1 200"):  # on a slow machine the read lease ends before the request
            with standing_still(owner):
                connection = socket.create_connection((cluster[1].host, cluster[1].port), timeout=20)
                request = f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                connection.sendall(request.encode())
                received = b"".join(iter(lambda connection=connection: connection.recv(1 << 20), b""))
        assert len(received) < len(LARGE), "it is cut off, never ended cleanly"
        wait_until(lambda: cluster[1].status()["content_repaired"] == 1)
        assert cluster[1].client.get(f"/v2/app/blobs/{digest}").body == LARGE


def test_uploads_go_on_over_connections_at_any_process(server):
    content = os.urandom(500_000)
    location = server.client.begin_upload("app")
    for at in range(0, len(content), 50_000):
        answer = server.client.request("PATCH", location, content[at : at + 50_000])
        assert answer.status == 202
        location = answer.headers["Location"]
    assert server.client.request("PUT", with_digest(location, sha256(content)), b"").status == 201
    assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content

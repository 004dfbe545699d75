"""kill -9 at any moment: nothing that was acknowledged is missing afterwards, and nothing half-written shows."""

import contextlib
import http.client
import random
import signal
import threading
import time

from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.server import running_cluster, running_server, wait_until

PUSHES = 200
KILLS_EACH = 7


def pusher(server, at, acknowledged, stop):
    """Push images until there are enough; note those that were answered 201."""
    for number in range(PUSHES):
        image = images.image((at, number), layers=1, layer_bytes=20_000)
        for _ in range(200):
            if stop.is_set():
                return
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                server.client.push(f"app{at}", f"v{number}", image)
                acknowledged[at].append((f"v{number}", image))
                break
            time.sleep(0.05)


def test_kill_9_during_200_pushes_at_each_of_three_instances(tmp_path):
    drawn = random.Random(11)
    with running_cluster(tmp_path, ["eu", "us", "ap"]) as cluster:
        acknowledged: list[list] = [[], [], []]
        stop = threading.Event()
        threads = [
            threading.Thread(target=pusher, args=(server, at, acknowledged, stop))
            for at, server in enumerate(cluster.servers)
        ]
        for thread in threads:
            thread.start()
        when = sorted((count, at) for at in range(3) for count in drawn.sample(range(PUSHES), KILLS_EACH))
        for count, at in when:
            wait_until(lambda at=at, count=count: len(acknowledged[at]) >= count, 60, every_s=0.001)
            time.sleep(drawn.uniform(0, 0.03))
            cluster[at].kill()
            cluster[at].start(wait=False)
        for thread in threads:
            thread.join(120)
        stop.set()
        for at, server in enumerate(cluster.servers):
            assert len(acknowledged[at]) == PUSHES
            for tag, image in acknowledged[at]:
                assert server.client.pull(f"app{at}", tag) == image.body
        cluster.wait_agreed(timeout_s=30)
        for server in cluster.servers:
            for at in range(3):
                assert len(server.client.tags(f"app{at}")) == PUSHES
        for server in cluster.servers:
            assert b" 0 damaged" in verify(server)


def verify(server) -> bytes:
    import subprocess
    import sys

    command = [sys.executable, "-m", "registry", "verify", "--data", str(server.data)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def test_an_upload_goes_on_after_kill_9(tmp_path):
    content = random.Random(5).randbytes(3_000_000)
    with running_server(tmp_path / "data") as server:
        location = server.client.begin_upload("app")
        answer = server.client.request("PATCH", location, content[:1_700_000], {"Content-Range": "0-1699999"})
        assert answer.status == 202
        server.kill()
        server.start()
        answer = server.client.get(answer.headers["Location"])
        assert (answer.status, answer.headers["Range"]) == (204, "0-1699999")
        rest = {"Content-Range": f"1700000-{len(content) - 1}"}
        finish = with_digest(answer.headers["Location"], sha256(content))
        assert server.client.request("PUT", finish, content[1_700_000:], rest).status == 201
        assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


def test_an_upload_that_was_all_received_before_kill_9_is_finished_by_an_empty_put(tmp_path):
    content = random.Random(6).randbytes(1_500_000)
    with running_server(tmp_path / "data") as server:
        location = server.client.request("PATCH", server.client.begin_upload("app"), content).headers["Location"]
        server.kill()
        server.start()
        assert server.client.request("PUT", with_digest(location, sha256(content)), b"").status == 201
        assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


def test_a_chunk_that_was_never_acknowledged_may_be_sent_again(tmp_path):
    """The process dies in the middle of a chunk: what the answer promised before is what counts."""
    import socket

    content = random.Random(7).randbytes(3_000_000)
    with running_server(tmp_path / "data") as server:
        location = server.client.begin_upload("app")
        location = server.client.request("PATCH", location, content[:500_000]).headers["Location"]
        with socket.create_connection((server.host, server.port)) as connection:
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 2500000\r\n\r\n"
            connection.sendall(head.encode() + content[500_000:2_500_000])
            upload = next((server.data / "uploads").iterdir())
            wait_until(lambda: upload.stat().st_size > 1_000_000)
            server.kill()
        server.start()
        answer = server.client.get(location)
        assert answer.headers["Range"] == "0-499999"
        answer = server.client.request("PATCH", location, content[500_000:], {"Content-Range": "500000-2999999"})
        assert answer.status == 202
        assert server.client.request("PUT", with_digest(location, sha256(content)), b"").status == 201


def test_a_cancelled_upload_stays_cancelled_after_a_restart(tmp_path):
    with running_server(tmp_path / "data") as server:
        location = server.client.request("PATCH", server.client.begin_upload("app"), b"x" * 1000).headers["Location"]
        assert server.client.delete(location).status == 204
        server.kill()
        server.start()
        assert server.client.get(location).code == "BLOB_UPLOAD_UNKNOWN"
        assert list((server.data / "uploads").iterdir()) == []


def test_files_of_uploads_that_were_never_acknowledged_are_removed(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.begin_upload("app")
        (server.data / "uploads" / "leftover").write_bytes(b"x" * 100)
        (server.data / "fetches" / "leftover").write_bytes(b"x" * 100)
        server.kill()
        server.start()
        assert list((server.data / "uploads").iterdir()) == list((server.data / "fetches").iterdir()) == []


def test_sigterm_finishes_what_is_under_way(tmp_path):
    content = random.Random(8).randbytes(2_000_000)
    with running_server(tmp_path / "data") as server:
        location = server.client.begin_upload("app")

        def slowly():
            for at in range(0, len(content), 200_000):
                yield content[at : at + 200_000]
                time.sleep(0.1)

        statuses = []
        finish = with_digest(location, sha256(content))
        thread = threading.Thread(target=lambda: statuses.append(server.client.request("PUT", finish, slowly()).status))
        thread.start()
        wait_until(server.upload_bytes)
        assert server.stop() == 0
        thread.join()
        assert statuses == [201]


def begin_patch(server, location, pieces, answers):
    """Send a PATCH in a thread, which takes as long as `pieces` do."""
    thread = threading.Thread(target=lambda: answers.append(server.client.request("PATCH", location, pieces)))
    thread.start()
    wait_until(lambda: (server.data / "uploads").exists() and list((server.data / "uploads").iterdir()))
    return thread


def test_sigterm_while_an_upload_is_at_work_lets_the_client_finish_it(tmp_path):
    """docker and podman send the bytes in a PATCH and finish by a PUT on another connection, which only the owner of
    the bytes can answer."""
    content, ending, answers = b"x" * 1000, threading.Event(), []

    def pieces():
        yield content
        ending.wait(20)
        time.sleep(1)  # as long as a server would need that closes at once

    with running_server(tmp_path / "data") as server:
        thread = begin_patch(server, server.client.begin_upload("app"), pieces(), answers)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.client.get("/readyz").status == 503)
        ending.set()
        thread.join()
        finish = with_digest(answers[0].headers["Location"], sha256(content))
        assert server.client.request("PUT", finish, b"").status == 201
        assert server.process.wait(10) == 0


def test_sigterm_does_not_wait_for_an_upload_longer_than_it_may(tmp_path):
    release = threading.Event()

    def pieces():
        yield b"x" * 1000
        release.wait(20)

    with running_server(tmp_path / "data", drain_s="0.5") as server:
        thread = begin_patch(server, server.client.begin_upload("app"), pieces(), [])
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        release.set()
        thread.join()

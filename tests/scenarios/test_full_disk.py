"""A disk that fills up: pushes are refused, everything else goes on, and so it does after a restart."""

import contextlib
import http.client
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.errors import DiskFull
from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.scenarios.test_fetch import flip_a_bit, linked_sites
from tests.support import images
from tests.support.client import sha256
from tests.support.logs import log_lines
from tests.support.nginx import for_clients
from tests.support.server import Server, running_cluster, wait_until

MIB = 1024 * 1024
DISK_MIB = 64

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


def of_full_disk(server):
    """Return the log lines about the full disk, of every process."""
    return [line for line in log_lines(server.log.read_text()) if str(DiskFull()) in str(line.get("error"))]


@contextlib.contextmanager
def small_disk(path):
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_an_upload_that_does_not_fit_is_refused_and_everything_else_goes_on(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        server = Server(disk / "data").start()
        try:
            image = images.image("fits")
            server.client.push("app", "v1", image)
            location = server.client.begin_upload("app")
            answer = server.client.request("PATCH", location, os.urandom(DISK_MIB * MIB))
            assert (answer.status, answer.code) == (503, "DENIED")
            assert server.client.get("/v2/app/manifests/v1").body == image.body
            server.client.push("app", "v2", images.image("fits too"))
            assert server.client.delete("/v2/app/manifests/v1").status == 202
            assert not list((disk / "data" / "uploads").iterdir()), "what does not fit is not kept"
            server.kill()
            server.start()
            assert server.client.tags("app") == ["v2"]
        finally:
            server.kill()


def test_a_full_disk_is_called_so_counted_and_logged_once_a_minute(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        server = Server(disk / "data").start()
        try:
            (disk / "ballast").write_bytes(bytes(small_free(server) - 20 * MIB))
            for number in range(30):
                answer = server.client.request("POST", f"/v2/app{number}/blobs/uploads/", b"")
                assert (answer.status, answer.code) == (503, "DENIED")
                assert answer.json()["errors"][0]["detail"]["reason"] == DiskFull.reason
            refused = server.client.request("PUT", "/v2/app/manifests/v1", b"nonsense").code
            (line,) = of_full_disk(server)
            assert line["event"] == str(LogEvent.PUSH_REJECTED)
            assert server.status()["pushes_refused"] == {"disk-full": 30, refused.lower().replace("_", "-"): 1}
            assert b'concord_pushes_refused_total{reason="disk-full"} 30.0' in server.client.get("/metrics").body
            assert "pushes refused since the start: 30 disk-full, 1" in concord("status", server.url).stdout
        finally:
            server.kill()


def test_a_disk_that_refuses_a_commit_is_called_full(tmp_path):
    """SQLite meets it, not a check before."""
    with small_disk(tmp_path / "disk") as disk:
        server = Server(disk / "data").start()
        try:
            image = images.image("there")
            server.client.push("app", "v1", image)
            with open(disk / "ballast", "wb") as file, contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(4096))
            refused = None
            for number in range(200):  # SQLite has some room in its log
                answer = server.client.put_manifest("app", f"v{number}", image.body, image.media_type)
                refused = answer if answer.status != 201 else refused
            assert refused is not None and refused.status == 503
            assert refused.json()["errors"][0]["detail"]["reason"] == DiskFull.reason
            assert len(of_full_disk(server)) == 1
        finally:
            server.kill()


def test_a_disk_filled_by_others_does_not_keep_an_instance_from_serving(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        server = Server(disk / "data").start()
        try:
            image = images.image("there")
            server.client.push("app", "v1", image)
            ballast = disk / "ballast"
            with open(ballast, "wb") as file, contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(4096))
            blob = os.urandom(1000)
            assert server.client.request("POST", f"/v2/app/blobs/uploads/?digest={sha256(blob)}", blob).status == 503
            assert server.client.get("/v2/app/manifests/v1").body == image.body
            ballast.unlink()
            wait_until(lambda: server.client.push_blob("app", blob))
            assert server.client.get(f"/v2/app/blobs/{sha256(blob)}").body == blob
        finally:
            server.kill()


def test_a_site_with_one_full_disk_takes_every_push_through_the_shipped_nginx(tmp_path):
    """The full one refuses where an upload begins, and nginx goes on to the next."""
    with small_disk(tmp_path / "disk") as disk, running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        small = Server(disk / "data", "eu", [cluster.redis.url]).start()
        try:
            addresses = [server.address for server in (small, *cluster.servers)]
            with for_clients(tmp_path / "nginx", addresses) as nginx:
                nginx.wait_listening()
                (disk / "ballast").write_bytes(bytes(small_free(small) - 20 * MIB))
                begun = small.client.request("POST", "/v2/app/blobs/uploads/", b"")
                assert (begun.status, begun.code) == (503, "DENIED")
                assert begun.json()["errors"][0]["detail"]["reason"] == DiskFull.reason
                for number in range(9):
                    nginx.client.push_blob("app", b"%d" % number + bytes(MIB))
                image = images.image("pushed while a disk is full")
                nginx.client.push("app", "v1", image)
                assert small.client.get("/v2/app/manifests/v1").body == image.body
                assert small.client.get("/readyz").status == 200, "it goes on serving"
        finally:
            small.kill()


@contextlib.contextmanager
def small_beside(directory, rate=None):
    """A holder, and an instance on a small disk that reaches it by a link."""
    with (
        small_disk(directory / "disk") as disk,
        linked_sites(directory, [rate, None], holder_wait_s="2") as (cluster, links),
    ):
        cluster[1].stop()
        cluster[1].data = disk / "data"
        cluster[1].environment["CONCORD_DATA"] = str(cluster[1].data)
        cluster[1].start()
        cluster.wait_acquainted()
        yield *cluster.servers, links[0]
        cluster[1].kill()


def test_what_does_not_fit_here_is_passed_through_from_its_holder(tmp_path):
    with small_beside(tmp_path) as (holder, small, _):
        content = os.urandom(DISK_MIB * MIB)
        path = f"/v2/app/blobs/{holder.client.push_blob('app', content)}"
        wait_until(lambda: small.client.head(path).status == 200)
        free = small_free(small)
        assert small.client.get(path).body == content
        parts = [(0, 999), (5 * MIB - 3, 20 * MIB + 4), (len(content) - 5, len(content) - 1)]
        for first, last in parts:
            answer = small.client.get(path, Range=f"bytes={first}-{last}")
            assert answer.status == 206 and answer.body == content[first : last + 1]
        assert b"concord_pass_throughs_total 1.0" in small.client.get("/metrics").body
        assert not list((small.data / "fetches").iterdir()) and small_free(small) > free - MIB
        leaving = http.client.HTTPConnection(small.host, small.port)
        leaving.request("GET", path)
        leaving.getresponse().read(1000)
        leaving.close()
        assert small.client.push_blob("app", b"small")
        flip_a_bit(holder, sha256(content), at=50 * MIB)
        with pytest.raises(http.client.IncompleteRead) as cut:
            small.client.get(path)
        assert len(cut.value.partial) < len(content)
        sound = small.client.get(path, Range="bytes=0-99")
        assert (sound.status, sound.body) == (206, content[:100]), "a MiB that is right"
        assert small.client.get(path, Range=f"bytes={50 * MIB - 9}-{50 * MIB}").status == 503, "no part of a wrong MiB"


def small_free(server):
    return os.statvfs(server.data).f_bavail * os.statvfs(server.data).f_frsize


def test_a_disk_that_fills_up_in_the_middle_of_a_pull_does_not_end_it(tmp_path):
    with small_beside(tmp_path, rate=12e6) as (holder, small, link), ThreadPoolExecutor() as pool:
        content = os.urandom(24 * MIB)
        path = f"/v2/app/blobs/{holder.client.push_blob('app', content)}"
        wait_until(lambda: small.client.head(path).status == 200)
        before = link.returned_bytes
        pull = pool.submit(small.client.get, path)
        wait_until(lambda: link.returned_bytes - before > 8 * MIB)
        (small.data.parent / "ballast").write_bytes(bytes(small_free(small) - 30 * MIB))
        assert pull.result(30).body == content
        assert link.returned_bytes - before < len(content) + 4 * MIB, "it went on where the disk was full"
        assert b"concord_pass_throughs_total 1.0" in small.client.get("/metrics").body

"""A disk that fills up: pushes are refused, everything else goes on, and so it does after a restart."""

import contextlib
import http.client
import os
import subprocess

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.server import Cluster, Server, wait_until

MIB = 1024 * 1024
DISK_MIB = 64

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


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


def test_a_pull_of_content_that_does_not_fit_here_ends(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        cluster = Cluster(tmp_path, ["eu", "us"], hold_s="2")
        cluster.servers[1].environment["CONCORD_DATA"] = str(disk / "data")
        cluster.start()
        try:
            content = os.urandom(DISK_MIB * MIB)
            digest = cluster[0].client.push_blob("app", content)
            cluster.wait_agreed()
            with pytest.raises(http.client.IncompleteRead):
                cluster[1].client.get(f"/v2/app/blobs/{digest}")
            assert cluster[1].client.push_blob("app", b"small")
            wait_until(lambda: not list((disk / "data" / "fetches").iterdir()))
        finally:
            cluster.stop()

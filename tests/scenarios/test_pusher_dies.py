"""The pushing instance dies right after its 201 and its frame."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_cluster, wait_until

IMAGE = images.image("dying", layer_bytes=200_000)


def large_image() -> images.Image:
    """An image whose manifest has 4 MiB, which no frame carries."""
    content = json.loads(IMAGE.body) | {"annotations": {"pad": ""}}
    room = 4 * 1024 * 1024 - len(json.dumps(content))
    content["annotations"]["pad"] = "x" * room
    return images.Image(json.dumps(content).encode(), images.OCI_IMAGE, IMAGE.blobs)


def large_index() -> images.Image:
    """An index so wide that its push is more than a frame may hold."""
    return images.index(*(images.image(("child", number), layers=1, layer_bytes=10) for number in range(500)))


@pytest.mark.parametrize("make", [lambda: IMAGE, large_image, large_index], ids=["small", "4 MiB", "500 children"])
@pytest.mark.parametrize("sites", [["eu", "us"], ["eu", "eu"]], ids=["two sites", "one site"])
def test_tag_and_manifest_are_served_elsewhere(tmp_path, make, sites):
    image = make()
    with running_cluster(tmp_path, sites) as cluster:
        pusher, other = cluster.servers
        for blob in image.blobs:
            pusher.client.push_blob("app", blob)
        for child in image.children:
            pusher.client.push("app", child.digest, child)
        cluster.wait_agreed()
        answer = pusher.client.put_manifest("app", "v1", image.body, image.media_type)
        pusher.kill()
        assert answer.status == 201

        def pulled():
            got = other.client.get("/v2/app/manifests/v1")
            return got.status == 200 and got.body == image.body

        if len(set(sites)) == 1:
            assert pulled(), "one site is one registry: an answered push is visible at once"
        wait_until(pulled, 5)
        assert other.client.get(f"/v2/app/manifests/{image.digest}").body == image.body


def test_layers_are_waited_for_then_503_and_head_is_404_until_it_is_back(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        digest = sha256(IMAGE.blobs[1])
        eu.client.push("app", "v1", IMAGE)
        cluster.wait_agreed()
        eu.kill()
        path = f"/v2/app/blobs/{digest}"
        assert us.client.head(path).status == 404
        begun = time.monotonic()
        answer = us.client.get(path)
        assert (answer.status, answer.code) == (503, "BLOB_UNKNOWN")
        assert 15 < time.monotonic() - begun < 35
        assert int(answer.headers["Retry-After"]) > 0
        assert "site eu" in answer.json()["errors"][0]["message"]
        mount = us.client.request("POST", f"/v2/other/blobs/uploads/?mount={digest}&from=app", b"")
        assert mount.status == 202
        eu.start()
        wait_until(lambda: us.client.get(path).body == IMAGE.blobs[1])
        assert us.client.head(path).status == 200


def test_a_head_right_after_the_upload_finds_the_blob_while_its_holder_restarts(tmp_path):
    """docker asks for every blob it has uploaded, and gives the push up when it is missing."""
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster, ThreadPoolExecutor() as pool:
        holder, other = cluster.servers
        path = f"/v2/app/blobs/{holder.client.push_blob('app', IMAGE.blobs[1])}"
        assert holder.stop() == 0
        asking = pool.submit(other.client.head, path)
        time.sleep(1)
        holder.start()
        assert asking.result(20).status == 200


def test_a_head_waits_for_a_holder_that_is_slow(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster, ThreadPoolExecutor() as pool:
        holder, other = cluster.servers
        path = f"/v2/app/blobs/{holder.client.push_blob('app', IMAGE.blobs[1])}"
        holder.pause()
        asking = pool.submit(other.client.head, path)
        time.sleep(1)
        holder.resume()
        assert asking.result(20).status == 200


def test_a_get_that_waits_is_served_when_the_holder_comes_back(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster, ThreadPoolExecutor() as pool:
        eu, us = cluster.servers
        eu.client.push("app", "v1", IMAGE)
        cluster.wait_agreed()
        eu.kill()
        waiting = pool.submit(us.client.get, f"/v2/app/blobs/{sha256(IMAGE.blobs[1])}")
        time.sleep(3)
        eu.start()
        assert waiting.result(30).body == IMAGE.blobs[1]


def test_pushing_the_image_again_elsewhere_heals_it(tmp_path):
    with running_cluster(tmp_path, ["eu", "us", "ap"]) as cluster:
        eu, us, ap = cluster.servers
        eu.client.push("app", "v1", IMAGE)
        cluster.wait_agreed()
        eu.kill()
        for blob in IMAGE.blobs:
            if us.client.head(f"/v2/app/blobs/{sha256(blob)}").status == 404:
                us.client.push_blob("app", blob)
        assert us.client.put_manifest("app", "v1", IMAGE.body, IMAGE.media_type).status == 201
        assert us.client.pull("app", "v1") == IMAGE.body
        assert ap.client.pull("app", "v1") == IMAGE.body

"""Content where the policy wants it, and pushes that are answered when it is there."""

import shutil
import time

import pytest

from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.client import sha256
from tests.support.server import Server, free_port, running_cluster, wait_until


def path_of(server, digest):
    algorithm, _, encoded = digest.partition(":")
    return server.data / "blobs" / algorithm / encoded[:2] / encoded


def holders(cluster, digest):
    return [server for server in cluster.servers if path_of(server, digest).exists()]


def joined(cluster, site, **settings):
    """Another instance of a cluster that is running."""
    server = Server(cluster.directory / f"joined-{site}", site, [cluster.redis.url], port=free_port(), **settings)
    cluster.servers.append(server.start())
    return server


def test_two_copies_are_at_two_sites_soon_after_the_upload(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu", "us"], copies="2") as cluster:
        pusher, neighbour, far = cluster.servers
        digests = [pusher.client.push_blob("app", b"%d" % number * 5000) for number in range(12)]
        for digest in digests:
            wait_until(lambda digest=digest: far in holders(cluster, digest), 10)
        cluster.wait_agreed()
        pusher.kill()
        for digest in digests:
            assert neighbour.client.get(f"/v2/app/blobs/{digest}").status == 200


def test_everything_is_everywhere_also_where_somebody_joins_later(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], copies="everywhere") as cluster:
        image = images.image("everywhere", layer_bytes=100_000)
        cluster.servers[0].client.push("app", "v1", image)
        newcomer = joined(cluster, "ap", copies="everywhere")
        for blob in image.blobs:
            wait_until(lambda blob=blob: newcomer in holders(cluster, sha256(blob)), 20)
        wait_until(lambda: newcomer.status()["copies"]["fetched"] == len(image.blobs))


def test_a_proxy_instance_keeps_no_copies_and_serves_everything(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], copies="everywhere") as cluster:
        front = joined(cluster, "eu", copies="everywhere", proxy_instance="true")
        image = images.image("front", layer_bytes=50_000)
        cluster.servers[0].client.push("app", "v1", image)
        for blob in image.blobs:
            wait_until(lambda blob=blob: cluster.servers[1] in holders(cluster, sha256(blob)), 10)
        assert not any(front in holders(cluster, sha256(blob)) for blob in image.blobs)
        cluster.wait_agreed()
        assert front.client.pull("app", "v1") == image.body


def test_the_disk_of_the_instance_that_answered_is_destroyed_right_after(tmp_path):
    """acknowledge: 2. Each push is answered, and then its instance is gone for good."""
    with running_cluster(tmp_path, ["eu", "us"], copies="2", acknowledge="2") as cluster:
        left = cluster.servers[1]
        for number in range(3):
            pusher = cluster.servers[0] if number == 0 else joined(cluster, f"s{number}", copies="2", acknowledge="2")
            image = images.image(("destroyed", number), layers=2, layer_bytes=300_000)
            index = images.index(image, images.image(("child", number), layer_bytes=70_000))
            pusher.client.push("app", f"v{number}", index)
            pusher.kill()
            shutil.rmtree(pusher.data)
            others = [server for server in cluster.servers if server.process is not None]
            wait_until(lambda number=number: f"v{number}" in left.client.tags("app"), 5)
            assert left.client.pull("app", f"v{number}") == index.body, others


def test_a_push_that_reaches_too_few_says_so_and_stays(tmp_path):
    settings = {"copies": "2", "acknowledge": "2", "acknowledge_timeout_s": "2"}
    with running_cluster(tmp_path, ["eu", "us"], **settings) as cluster:
        eu, us = cluster.servers
        image = images.image("few", layer_bytes=1000)
        us.kill()
        for blob in image.blobs:
            eu.client.push_blob("app", blob)
        begun = time.monotonic()
        answer = eu.client.put_manifest("app", "v1", image.body, image.media_type)
        assert answer.status == 503 and answer.code == "DENIED" and answer.headers["Retry-After"]
        assert 1.5 < time.monotonic() - begun < 10
        detail = answer.json()["errors"][0]["detail"]
        assert detail["acknowledge"] == "2" and [one["site"] for one in detail["holders"]] == ["eu"]
        assert (detail["acknowledged"], detail["required"]) == (1, 2)
        (line,) = eu.logged(LogEvent.PUSH_REJECTED, request=answer.headers["X-Request-Id"])
        assert (line["level"], line["reason"], line["repository"]) == ("warning", "write-concern", "app")
        assert (line["acknowledged"], line["required"]) == (1, 2)
        assert eu.client.pull("app", "v1") == image.body, "what is there stays and is served"
        us.start()
        wait_until(lambda: eu.client.put_manifest("app", "v1", image.body, image.media_type).status == 201, 20)
        assert us.client.pull("app", "v1") == image.body
        assert all(us in holders(cluster, sha256(blob)) for blob in image.blobs)


@pytest.mark.parametrize(("dead", "status"), [("", 201), ("us", 503)])
def test_each_site_has_to_have_it(tmp_path, dead, status):
    settings = {"copies": "eu=1,us=1", "acknowledge": "each-site", "acknowledge_timeout_s": "2"}
    with running_cluster(tmp_path, ["eu", "us", "ap"], **settings) as cluster:
        eu, us, ap = cluster.servers
        for server in cluster.servers:
            if server.environment["CONCORD_SITE"] == dead:
                server.kill()
        image = images.image("each", layer_bytes=1000)
        for blob in image.blobs:
            eu.client.push_blob("app", blob)
        answer = eu.client.put_manifest("app", "v1", image.body, image.media_type)
        assert answer.status == status
        if status == 503:
            error = answer.json()["errors"][0]
            assert (error["detail"]["acknowledged"], error["detail"]["required"]) == (1, 2)
            assert error["detail"]["sites_without"] == "us" and eu.logged(LogEvent.PUSH_REJECTED, sites_without="us")
        for blob in image.blobs:
            assert (us in holders(cluster, sha256(blob))) == (status == 201)
            assert ap not in holders(cluster, sha256(blob))

"""A region that is lost with everything in it, and comes back; and Redis lost in one region, or in both."""

import contextlib

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.server import Cluster, Redis, wait_until

SITES = ["eu", "eu", "us", "us"]
NAMES = ("kept", "deleted", "later", "only here")
KEPT, DELETED, LATER, ONLY_HERE = (images.image(name, layer_bytes=50_000) for name in NAMES)


@contextlib.contextmanager
def two_regions(directory, **settings):
    """Two instances and a Redis in each region; every instance is told of both Redis."""
    with contextlib.ExitStack() as stack:
        redis = {}
        for site in ("eu", "us"):
            (directory / f"redis-{site}").mkdir()
            redis[site] = Redis(directory / f"redis-{site}").start()
            stack.callback(redis[site].kill)
        cluster = Cluster(directory, SITES, with_redis=False, **settings)
        stack.callback(cluster.stop)
        for server in cluster.servers:
            del server.environment["CONCORD_PEER"]
            server.environment["CONCORD_REDIS"] = ",".join(one.url for one in redis.values())
        yield cluster.start(), redis


def frames_applied(server):
    return server.status()["frames"].get("applied", 0)


def has_tag(server, tag):
    return tag in server.client.tags("app")


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    with two_regions(tmp_path_factory.mktemp("regions"), holder_wait_s="1") as running:
        yield running


@pytest.mark.parametrize("lost", ["eu", "us"])
def test_with_one_regions_redis_lost_frames_go_by_the_other(regions, lost):
    cluster, redis = regions
    wait_until(lambda: all(all(server.status()["bus"].values()) for server in cluster.servers))
    cluster.wait_agreed()
    redis[lost].kill()
    try:
        wait_until(lambda: all(sorted(server.status()["bus"].values()) == [False, True] for server in cluster.servers))
        before = [frames_applied(server) for server in cluster.servers]
        for number, server in enumerate(cluster.servers):
            server.client.push("app", f"without-{lost}-{number}", KEPT)
        for number in range(len(SITES)):
            tag = f"without-{lost}-{number}"
            wait_until(lambda tag=tag: all(has_tag(server, tag) for server in cluster.servers), 2)
        assert all(frames_applied(server) > more for server, more in zip(cluster.servers, before, strict=True))
        assert all(server.client.get("/readyz").status == 200 for server in cluster.servers)
    finally:
        redis[lost].start()


def test_with_both_redis_lost_all_agree_within_seconds_and_who_restarts_finds_the_others(regions):
    cluster, redis = regions
    cluster.wait_agreed()
    for one in redis.values():
        one.kill()
    try:
        for number, server in enumerate(cluster.servers):
            server.client.push("app", f"no-redis-{number}", LATER)
            assert server.client.pull("app", f"no-redis-{number}") == LATER.body
        cluster.wait_agreed(10)
        restarted, other = cluster[1], cluster[3]
        restarted.kill()
        other.client.delete("/v2/app/manifests/no-redis-0")
        restarted.start()
        cluster.wait_agreed(10)
        assert not has_tag(restarted, "no-redis-0") and has_tag(restarted, "no-redis-3")
        assert all(server.client.get("/readyz").status == 200 for server in cluster.servers)
    finally:
        for one in redis.values():
            one.start()
    wait_until(lambda: all(all(server.status()["bus"].values()) for server in cluster.servers))
    cluster[0].client.push("app", "back", KEPT)
    wait_until(lambda: all(has_tag(server, "back") for server in cluster.servers), 2)


def test_a_region_is_lost_and_comes_back(regions):
    """Meanwhile the other serves what it holds, takes pushes and deletes; nothing that it deleted returns."""
    cluster, redis = regions
    eu, us = cluster.servers[:2], cluster.servers[2:]
    eu[0].client.push("lost", "kept", KEPT)
    eu[0].client.push("lost", "only-here", ONLY_HERE)
    for tag in ("deleted", "untagged"):
        eu[1].client.push("lost", tag, DELETED)
    cluster.wait_agreed()
    wait_until(lambda: us[0].client.pull("lost", "kept") == KEPT.body)
    wait_until(lambda: all(server.client.head("/v2/lost/manifests/only-here").status == 200 for server in us))
    for gone in (*eu, redis["eu"]):
        gone.kill()
    for server in us:
        assert server.client.pull("lost", "kept") == KEPT.body
    answer = us[1].client.get(f"/v2/lost/blobs/{sha256(ONLY_HERE.blobs[0])}")
    assert (answer.status, answer.code) == (503, "BLOB_UNKNOWN")
    assert "at site eu" in answer.json()["errors"][0]["message"] and answer.headers["Retry-After"]
    us[0].client.push("lost", "only-here", ONLY_HERE)
    assert us[1].client.pull("lost", "only-here") == ONLY_HERE.body, "pushed again it is healed"
    us[0].client.push("lost", "later", LATER)
    assert us[1].client.delete("/v2/lost/manifests/untagged").status == 202
    assert us[1].client.delete(f"/v2/lost/manifests/{DELETED.digest}").status == 202
    assert us[0].client.tags("lost") == ["kept", "later", "only-here"], "one site is one registry still"
    redis["eu"].start()
    for server in eu:
        server.start(wait=False)
    for server in eu:
        server.wait_ready()
    cluster.wait_acquainted()
    cluster.wait_agreed()
    for server in cluster.servers:
        assert server.client.tags("lost") == ["kept", "later", "only-here"]
        assert server.client.get(f"/v2/lost/manifests/{DELETED.digest}").status == 404
        assert server.client.pull("lost", "later") == LATER.body
    eu[0].client.push("lost", "again", KEPT)
    wait_until(lambda: all("again" in server.client.tags("lost") for server in cluster.servers), 2)

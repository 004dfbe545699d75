"""Clients of an instance that has just started: a balancer sends them as soon as it listens."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import apsw
import pytest

from tests.support import images
from tests.support.client import Client
from tests.support.network import hosted_cluster
from tests.support.processes import children, standing_still
from tests.support.server import running_cluster, wait_until

OLD, NEW = images.image("old", layer_bytes=1000), images.image("new", layer_bytes=1000)
STOPPED_S = 1.5
ASKING = 30
"""So many connections that each process gets some."""


@pytest.fixture(params=["1", "2"], ids=["one-process", "two-processes"])
def site(request, tmp_path):
    """Two instances of one site, and a tag that was moved while the second one was away."""
    with running_cluster(tmp_path, ["eu", "eu"], workers=request.param) as cluster:
        cluster[0].client.push("app", "moved", OLD)
        cluster[0].client.push("app", "gone", OLD)
        cluster.wait_agreed()
        wait_until(lambda: knows_somebody(cluster[1]))
        cluster[1].kill()
        cluster[0].client.push("app", "moved", NEW)
        cluster[0].client.push("app", "added", NEW)
        cluster[0].client.delete("/v2/app/manifests/gone")
        yield cluster


def knows_somebody(server):
    """Also after a restart."""
    with closing(apsw.Connection(str(server.data / "catalog.sqlite"))) as catalog:
        return catalog.execute("SELECT count(*) FROM members").fetchone()[0]


@contextmanager
def starting(cluster):
    """A client of the second instance, which listens, while the first cannot tell it anything for a moment."""
    with ExitStack() as stack:
        for pid in (cluster[0].process.pid, *children(cluster[0])):
            stack.enter_context(standing_still(pid))
        cluster[1].start(wait=False)
        wait_until(lambda: listens(cluster[1]), every_s=0.005)
        going_on = threading.Timer(STOPPED_S, stack.pop_all().close)
        going_on.start()
        yield Client(cluster[1].host, cluster[1].port, timeout_s=20)
        going_on.join()


def listens(server):
    try:
        return server.client.get("/healthz").status == 200
    except OSError:
        return False


def test_who_has_just_started_answers_what_its_site_knows(site):
    """An instance that had just started answered clients before it had heard any member: a balancer that ignores
    `/readyz` was told that a tag, or a blob, was unknown (found by real clients behind nginx, twice)."""
    with starting(site) as client, ThreadPoolExecutor(ASKING) as pool:
        asked = []
        for _ in range(ASKING):
            asked.append(pool.submit(client.get, "/v2/app/manifests/moved"))
            time.sleep(STOPPED_S / 2 / ASKING)
        assert {answer.result().body for answer in asked} == {NEW.body}
        assert client.get("/v2/app/manifests/added").body == NEW.body
        assert client.get("/v2/app/manifests/gone").status == 404
        assert client.get("/v2/app/tags/list").json()["tags"] == ["added", "moved"]


@pytest.mark.parametrize("site", ["1"], indirect=True)
def test_a_delete_at_who_has_just_started_deletes_what_came_meanwhile(site):
    with starting(site) as client:
        assert client.delete(f"/v2/app/manifests/{NEW.digest}").status == 202
    site.wait_agreed()
    for server in site.servers:
        assert server.client.tags("app") == []


@pytest.mark.parametrize("site", ["1"], indirect=True)
def test_a_delete_whose_client_has_given_up_deletes_nothing(site):
    """A delete that waited for its instance to catch up was done although its client had given up, and had pushed again
    elsewhere (found by a review)."""
    with starting(site) as client:
        with socket.create_connection((client.host, client.port)) as connection:
            connection.sendall(b"DELETE /v2/app/manifests/added HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.2)
        site[0].resume()
        site[0].client.delete("/v2/app/manifests/added")
        site[0].client.push("app", "added", NEW)
    wait_until(lambda: site[1].client.get("/readyz").status == 200)
    site.wait_agreed()
    for server in site.servers:
        assert server.client.tags("app") == ["added", "moved"]


@pytest.mark.parametrize("site", ["1"], indirect=True)
def test_who_starts_while_its_neighbours_are_gone_serves_what_it_has_after_a_moment(site):
    site[0].kill()
    site[1].start(wait=False)
    wait_until(lambda: listens(site[1]), every_s=0.005)
    begun = time.monotonic()
    assert site[1].client.get("/v2/app/manifests/moved").body == OLD.body
    assert 1.5 < time.monotonic() - begun < 8.0


def test_clients_of_who_cannot_catch_up_are_answered_in_the_end(tmp_path):
    """Its neighbour is heard on the bus, and swallows requests."""
    with hosted_cluster(tmp_path, ["eu", "eu"]) as (cluster, network):
        cluster[0].client.push("app", "moved", OLD)
        cluster.wait_agreed()
        cluster[1].kill()
        cluster[0].client.push("app", "moved", NEW)
        network.swallow(1, network.addresses[0])
        cluster[1]._constants = {"registry.cluster.membership.join.CLIENTS_WAIT_S": 2.0}
        cluster[1].start(wait=False)
        wait_until(lambda: listens(cluster[1]), every_s=0.005)
        begun = time.monotonic()
        assert cluster[1].client.get("/v2/app/manifests/moved").body == OLD.body
        assert 0.5 < time.monotonic() - begun < 6.0

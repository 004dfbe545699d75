"""An instance that was started with another cluster key than its neighbours: the usual slip of a rotation."""

import re
from contextlib import closing

import apsw
import pytest

from registry.telemetry.events import LogEvent
from tests.support.server import running_cluster, wait_until

OTHER = "another-cluster-key-for-the-tests"


@pytest.fixture
def three(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu", "eu"]) as cluster:
        wait_until(lambda: all(remembered(server) == 2 for server in cluster.servers))
        yield cluster


def remembered(server):
    """Return how many members a restarted instance would know: with another key it hears no member that could tell
    it."""
    with closing(apsw.Connection(str(server.data / "catalog.sqlite"))) as catalog:
        return catalog.execute("SELECT count(*) FROM members").fetchone()[0]


def restart_with_key(server, key):
    server.stop()
    server.environment["CONCORD_CLUSTER_KEY"] = key
    server.start(wait=False)


def is_ready(server):
    try:
        return server.client.get("/readyz").status == 200
    except OSError:
        return None


def figure(server, name):
    found = re.search(rf"^concord_{name} (.+)$", server.client.get("/metrics").body.decode(), re.MULTILINE)
    return float(found[1])


def test_an_instance_with_another_key_is_not_ready_and_says_why(three):
    first, second, third = three.servers
    right = third.environment["CONCORD_CLUSTER_KEY"]
    restart_with_key(third, OTHER)
    refusing = {first.url, second.url}
    wait_until(lambda: is_ready(third) is False and set(third.status()["cluster_key"]["refused_by"]) == refusing)
    assert third.status()["cluster_key"] == {"wrong": True, "accepted_by": 0, "refused_by": sorted(refusing)}
    assert figure(third, "cluster_key_wrong") == 1 and figure(third, "cluster_key_refusals") == 2
    assert third.logged(LogEvent.CLUSTER_KEY_REJECTED_BY_ALL)
    assert is_ready(first) and is_ready(second), "one wrong key does not take its neighbours out"
    wait_until(lambda: first.status()["cluster_key"]["refused_by"] == [third.url])
    assert not first.status()["cluster_key"]["wrong"] and figure(first, "cluster_key_wrong") == 0
    assert first.logged(LogEvent.PEER_KEY_REJECTED)
    assert OTHER not in third.log.read_text() + first.log.read_text()

    restart_with_key(third, right)
    third.wait_ready()
    wait_until(lambda: first.status()["cluster_key"]["refused_by"] == [])
    assert third.status()["cluster_key"]["refused_by"] == []


def test_an_instance_that_starts_beside_one_with_another_key_is_ready_when_any_member_accepts_its_own(three):
    first, _, third = three.servers
    restart_with_key(third, OTHER)
    wait_until(lambda: is_ready(third) is False)
    first.stop()
    first.start()
    wait_until(lambda: first.status()["cluster_key"]["refused_by"] == [third.url])
    assert is_ready(first) and first.status()["cluster_key"]["accepted_by"] == 1


def test_two_instances_with_different_keys_that_start_together_are_both_not_ready(tmp_path):
    """Neither can know which of the two keys is the wrong one."""
    with running_cluster(tmp_path, ["eu", "eu"], with_redis=False) as cluster:
        first, second = cluster.servers
        first.stop()
        restart_with_key(second, OTHER)
        first.start(wait=False)
        wait_until(lambda: is_ready(first) is False and is_ready(second) is False)
        wait_until(lambda: first.status()["cluster_key"]["wrong"] and second.status()["cluster_key"]["wrong"])

"""Joins, removals, collections and draining are one log line each, with who asked for them."""

import json

from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.server import running_cluster, running_server, wait_until


def test_joins_and_removals_are_one_line_at_every_instance(tmp_path):
    with running_cluster(tmp_path, ["eu", "us", "ap"]) as cluster:
        eu, us, ap = cluster.servers
        ids = {server: server.status()["instance"] for server in cluster.servers}
        for server in cluster.servers:
            for other in ids.keys() - {server}:
                (line,) = server.logged(LogEvent.MEMBER_JOINED, instance=ids[other])
                assert line["address"] == other.url and line["version"]
        assert len(wait_until(lambda: ap.logged(LogEvent.JOIN_COMPLETED))) == 1
        ap.stop()
        assert ap.logged(LogEvent.DRAIN_STARTED, by="signal")
        question = json.dumps({"instance": ids[ap]}).encode()
        wait_until(lambda: eu.client.request("POST", "/_concord/forget", question).status == 200, 15)
        for server in (eu, us):
            (line,) = wait_until(lambda server=server: server.logged(LogEvent.MEMBER_REMOVED, instance=ids[ap]))
            assert ids[eu] in line["by"]
        (line,) = eu.logged(LogEvent.ADMIN_ACTION_PERFORMED, act="forget")
        assert (line["instance"], line["client"]) == (ids[ap], "127.0.0.1")

        eu.stop()
        eu.start()
        assert us.client.request("POST", "/_concord/leave", b"{}").status == 200
        assert us.process.wait(30) == 0
        us.process = None
        assert us.logged(LogEvent.ADMIN_ACTION_PERFORMED, act="leave", instance=ids[us])
        assert us.logged(LogEvent.INSTANCE_DECOMMISSIONED) and us.logged(LogEvent.DRAIN_STARTED)
        assert len(eu.logged(LogEvent.MEMBER_JOINED, instance=ids[us])) == 1, "a restart is no join"


def test_an_instance_that_has_a_bus_and_hears_nobody_says_that_it_goes_on_alone(tmp_path):
    with running_cluster(tmp_path, ["eu"]) as cluster:
        (line,) = wait_until(lambda: cluster[0].logged(LogEvent.JOIN_COMPLETED))
        assert line["live"] == 0


def test_an_instance_on_its_own_joins_nothing(tmp_path):
    with running_server(tmp_path) as server:
        assert server.logged(LogEvent.INSTANCE_STARTED) and not server.logged(LogEvent.JOIN_COMPLETED)


def test_a_collection_that_removes_something_is_one_line(tmp_path):
    with running_cluster(tmp_path, ["eu"], gc_grace_s="0", gc_interval_s="1") as cluster:
        server = cluster[0]
        image = images.image("collected", layer_bytes=1000)
        server.client.push("app", "v1", image)
        assert not server.logged(LogEvent.GARBAGE_COLLECTION_FINISHED)
        server.client.delete(f"/v2/app/manifests/{image.digest}")
        (line,) = wait_until(lambda: server.logged(LogEvent.GARBAGE_COLLECTION_FINISHED, by="gc_interval_s"))
        assert line["contents"] == len(image.blobs)

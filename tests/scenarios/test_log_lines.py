"""Joins, removals, collections and draining are one log line each, with who asked for them."""

import json

from tests.support import images
from tests.support.server import running_cluster, wait_until


def lines(server, *parts):
    return [line for line in server.log.read_text().splitlines() if all(part in line for part in parts)]


def test_joins_and_removals_are_one_line_at_every_instance(tmp_path):
    with running_cluster(tmp_path, ["eu", "us", "ap"]) as cluster:
        eu, us, ap = cluster.servers
        ids = {server: server.status()["instance"] for server in cluster.servers}
        for server in cluster.servers:
            for other in ids.keys() - {server}:
                (line,) = lines(server, "concord.membership: joined the cluster", f"instance={ids[other]}")
                assert other.url in line and "version=" in line
        (line,) = lines(ap, "this instance has joined: ")
        ap.stop()
        assert lines(ap, "ending: ", 'by="told to end by a signal"')
        question = json.dumps({"instance": ids[ap]}).encode()
        wait_until(lambda: eu.client.request("POST", "/_concord/forget", question).status == 200, 15)
        removed = "concord.membership: removed from the cluster for good", f"instance={ids[ap]}"
        for server in (eu, us):
            (line,) = wait_until(lambda server=server: lines(server, *removed))
            assert f'by="instance {ids[eu]}"' in line
        (line,) = lines(eu, "administrative act: forget")
        assert f"instance={ids[ap]}" in line and "client=127.0.0.1" in line

        eu.stop()
        eu.start()
        assert us.client.request("POST", "/_concord/leave", b"{}").status == 200
        assert us.process.wait(30) == 0
        us.process = None
        assert lines(us, "administrative act: leave", f"instance={ids[us]}")
        assert lines(us, "ending: ", 'by="it has left the cluster"')
        assert len(lines(eu, "joined the cluster", f"instance={ids[us]}")) == 1, "a restart is no join"


def test_a_collection_that_removes_something_is_one_line(tmp_path):
    with running_cluster(tmp_path, ["eu"], gc_grace_s="0", gc_every_s="1") as cluster:
        server = cluster[0]
        image = images.image("collected", layer_bytes=1000)
        server.client.push("app", "v1", image)
        assert not lines(server, "collection: ")
        server.client.delete(f"/v2/app/manifests/{image.digest}")
        (line,) = wait_until(lambda: lines(server, "collection: ", 'by="schedule (gc_every_s)"'))
        assert f"{len(image.blobs)} contents removed" in line

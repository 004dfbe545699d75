"""Instances that leave, are forgotten, and come back all the same."""

import contextlib
import itertools
import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.telemetry.events import LogEvent
from tests.scenarios.test_copies import path_of
from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_cluster, wait_until


def forget(server, instance):
    return server.client.request("POST", "/_concord/forget", json.dumps({"instance": instance}).encode())


def report(server):
    """Return what a decommissioned instance says."""
    return server.client.get("/_concord/leave").json()


def knows(server):
    return {member["instance"] for member in server.status()["members"]}


@pytest.fixture
def three(tmp_path):
    with running_cluster(tmp_path, ["eu", "us", "ap"], gc_grace_s="0", gc_interval_s="0") as cluster:
        yield cluster


def test_a_forgotten_instance_comes_back_as_another_and_brings_only_what_nobody_saw(three):
    eu, us, ap = three.servers
    gone, unseen = images.image("gone", layer_bytes=2000), images.image("unseen", layer_bytes=2000)
    eu.client.push("app", "v1", gone)
    three.wait_agreed()
    before = ap.status()["instance"]
    ap.kill()
    bus = ap.environment.pop("CONCORD_REDIS")
    ap.start()  # cut off from everybody
    ap.client.push("app", "unseen", unseen)
    ap.kill()
    wait_until(lambda: forget(eu, before[:8]).status == 200, 15)
    wait_until(lambda: before not in knows(us), 10)
    assert us.client.delete(f"/v2/app/manifests/{gone.digest}").status == 202
    wait_until(lambda: "v1" not in eu.client.tags("app"), 5)
    collected = eu.client.request("POST", "/_concord/gc", b"{}").json()
    assert collected["removed"] == len(gone.blobs), "no instance waits for a removed member"
    ap.environment["CONCORD_REDIS"] = bus
    ap.start()
    wait_until(lambda: ap.status()["instance"] not in (before, ""), 15)
    after = ap.status()["instance"]
    wait_until(lambda: after in knows(eu) and after in knows(us), 15)
    wait_until(lambda: all(server.client.tags("app") == ["unseen"] for server in three.servers), 15)
    assert us.client.pull("app", "unseen") == unseen.body
    assert ap.logged(LogEvent.REMOVED_INSTANCE_RENAMED, removed=before, instance=after)


def test_who_is_live_or_unknown_is_not_forgotten(three):
    eu, us, _ = three.servers
    wait_until(lambda: len(knows(eu)) == 2)
    assert forget(eu, us.status()["instance"]).status == 409
    assert forget(eu, "0" * 32).status == 404
    assert forget(eu, "").status == 404
    assert eu.client.request("POST", "/_concord/forget", b"[]").status == 400
    assert len(knows(eu)) == 2


def test_who_leaves_hands_over_what_only_it_holds(three):
    eu, us, ap = three.servers
    image = images.image("handed over", layers=4, layer_bytes=200_000)
    eu.client.push("app", "v1", image)
    three.wait_agreed()
    leaving = eu.status()["instance"]
    assert eu.client.request("POST", "/_concord/leave", b"").status == 200
    assert eu.process.wait(30) == 0
    eu.process = None
    for blob in image.blobs:
        assert path_of(us, sha256(blob)).exists() or path_of(ap, sha256(blob)).exists()
    wait_until(lambda: leaving not in knows(us) | knows(ap), 10)
    assert us.client.pull("app", "v1") == image.body
    assert ap.client.pull("app", "v1") == image.body


def test_what_is_pushed_to_who_leaves_is_answered_only_if_it_stays(three):
    eu, us, ap = three.servers
    pushed = {}

    def push():
        with contextlib.suppress(AssertionError, OSError):
            for number in itertools.count():
                image = images.image(("leaving", number), layers=1, layer_bytes=50_000)
                eu.client.push(f"app{number}", "v1", image)
                pushed[f"app{number}"] = image

    with ThreadPoolExecutor() as pool:
        pushing = pool.submit(push)
        wait_until(lambda: len(pushed) > 5)
        assert eu.client.request("POST", "/_concord/leave", b"").status == 200
        pushing.result(30)
        assert eu.process.wait(30) == 0
        eu.process = None
    for repository, image in pushed.items():
        assert us.client.pull(repository, "v1") == image.body
    assert ap.client.pull(repository, "v1") == image.body


def test_two_that_leave_at_once_do_not_rely_on_each_other(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu", "us"], copies="eu=2") as cluster:
        first, second, stays = cluster.servers
        found = [images.image(("twice", number), layers=1, layer_bytes=50_000) for number in range(20)]
        for number, image in enumerate(found):
            first.client.push(f"app{number}", "v1", image)
        cluster.wait_agreed()
        digests = [sha256(blob) for image in found for blob in image.blobs]
        wait_until(lambda: all(path_of(second, digest).exists() for digest in digests))
        for server in (first, second):
            assert server.client.request("POST", "/_concord/leave", b"").status == 200
        for server in (first, second):
            assert server.process.wait(30) == 0
            server.process = None
        for number, image in enumerate(found):
            assert stays.client.pull(f"app{number}", "v1") == image.body


def test_an_instance_alone_cannot_leave(tmp_path):
    with running_cluster(tmp_path, ["eu"]) as cluster:
        answer = cluster.servers[0].client.request("POST", "/_concord/leave", b"")
        assert answer.status == 409 and cluster.servers[0].client.get("/readyz").status == 200


def test_a_client_that_drips_does_not_keep_an_instance_from_leaving(tmp_path):
    constants = {"registry.cluster.membership.decommission.WRITES_TIMEOUT_S": 1.0}
    with running_cluster(tmp_path, ["eu", "us"], constants=constants, drain_s="1") as cluster:
        leaving, _ = cluster.servers
        location = leaving.client.begin_upload("app")
        with socket.create_connection((leaving.host, leaving.port)) as connection:
            connection.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx".encode())
            wait_until(lambda: leaving.client.request("POST", "/_concord/leave", b"").status == 200)
            assert leaving.process.wait(30) == 0
            leaving.process = None


def test_who_leaves_says_what_is_left_and_who_refuses_to_take_it(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        leaving, stays = cluster.servers
        stays.stop()
        stays.environment |= {"CONCORD_PROXY_INSTANCE": "1", "CONCORD_INSTANCE_NAME": "us-1"}
        stays.start()
        cluster.wait_acquainted()
        image = images.image("no instance takes it", layers=2, layer_bytes=50_000)
        leaving.client.push("app", "v1", image)
        command = [sys.executable, "-m", "registry", "leave", leaving.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            try:
                wait_until(lambda: report(leaving)["remaining"])
                answer = report(leaving)
                assert answer["remaining"] == len(image.blobs) and not answer["left"]
                assert set(answer["examples"]) == {sha256(blob) for blob in image.blobs}
                assert answer["remaining_bytes"] == sum(map(len, image.blobs))
                assert answer["waits_for"].startswith("another instance that keeps copies")
                stays.kill()
                wait_until(lambda: report(leaving)["waits_for"].startswith("another instance that can be reached"), 30)
                stays.environment["CONCORD_PROXY_INSTANCE"] = "0"
                stays.start()
                assert leaving.process.wait(60) == 0
                leaving.process = None
                said = running.communicate(timeout=30)[0]
            finally:
                running.kill()
        assert f"0 contents handed over, {len(image.blobs)} to go ({answer['remaining_bytes']} bytes)" in said
        assert f"  {sha256(image.blobs[0])} is held by no other instance" in said
        assert "  it waits for another instance that keeps copies" in said
        assert said.endswith("it has left\n")
        assert stays.client.pull("app", "v1") == image.body


def test_who_leaves_names_an_instance_whose_disk_is_full(tmp_path):
    constants = {
        "registry.storage.ingest.RESERVE_BYTES": 2**62,
        "registry.cluster.transfer.transfer.RESERVE_BYTES": 2**62,
    }
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        leaving, stays = cluster.servers
        stays.stop()
        stays._constants = constants
        stays.environment["CONCORD_INSTANCE_NAME"] = "us-1"
        stays.start()
        cluster.wait_acquainted()
        leaving.client.push("app", "v1", images.image("no room for it", layers=1, layer_bytes=50_000))
        assert leaving.client.request("POST", "/_concord/leave", b"").status == 200
        (refusal,) = wait_until(lambda: report(leaving)["refused_by"])
        assert (refusal["instance"], refusal["name"]) == (stays.status()["instance"], "us-1")
        assert refusal["reason"]

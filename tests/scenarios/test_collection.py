"""Content that nothing refers to goes, and nothing else, while everybody pushes."""

import itertools
import json
import os
import random
import threading
import time

import pytest

from registry.cluster.placement.collection_reasons import Code
from tests.cli.test_cli import concord
from tests.scenarios.test_copies import holders, path_of
from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_cluster, running_server, wait_until

NOW = {"gc_grace_s": "0", "gc_interval_s": "0"}


def collect(server, **question):
    answer = server.client.request("POST", "/_concord/gc", json.dumps(question).encode())
    assert answer.status == 200, answer
    return answer.json()


def delete_tag_and_manifest(server, repository, image):
    assert server.client.delete(f"/v2/{repository}/manifests/{image.digest}").status == 202


@pytest.fixture
def pair(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], **NOW) as cluster:
        yield cluster


def test_what_a_deleted_image_leaves_goes_at_every_holder_and_its_links_too(pair):
    eu, us = pair.servers
    image, kept = images.image("gone", layer_bytes=3000), images.image("kept", layer_bytes=3000)
    eu.client.push("app", "v1", image)
    eu.client.push("app", "v2", kept)
    pair.wait_agreed()
    assert us.client.pull("app", "v1") == image.body
    delete_tag_and_manifest(us, "app", image)
    pair.wait_agreed()
    explained = collect(eu, dry_run=True)
    assert explained["removed"] == 0 and explained["would_be_removed"] == len(image.blobs)
    assert all(one["would_be_removed"] and not one["removed"] for one in explained["decisions"])
    doomed = {sha256(blob) for blob in image.blobs} - {sha256(blob) for blob in kept.blobs}
    for server in (eu, us):
        answer = collect(server)
        assert {one["digest"] for one in answer["decisions"] if one["removed"]} == doomed, answer
    pair.wait_agreed()
    for digest in doomed:
        assert not holders(pair, digest)
        assert eu.client.head(f"/v2/app/blobs/{digest}").status == 404
    assert us.client.pull("app", "v2") == kept.body
    eu.client.push("app", "v1", image)
    pair.wait_agreed()
    assert us.client.pull("app", "v1") == image.body, "it can be pushed again"


def test_an_upload_whose_manifest_is_on_its_way_is_kept_for_the_grace(tmp_path):
    with running_cluster(tmp_path, ["eu"], gc_grace_s="2", gc_interval_s="0") as cluster:
        (eu,) = cluster.servers
        digest = eu.client.push_blob("app", b"on its way")
        (decision,) = collect(eu)["decisions"]
        assert (decision["removed"], decision["reason"]) == (False, Code.GRACE_PERIOD)
        assert 0 < decision["detail"]["remaining_s"] <= 2
        time.sleep(2.1)
        eu.client.push_blob("app", b"on its way")
        assert not collect(eu)["decisions"][0]["removed"], "it was linked again"
        time.sleep(2.1)
        assert collect(eu)["removed"] == 1 and not path_of(eu, digest).exists()


def test_a_member_that_is_not_there_blocks_collection(pair):
    eu, us = pair.servers
    image = images.image("gone", layer_bytes=3000)
    eu.client.push("app", "v1", image)
    delete_tag_and_manifest(eu, "app", image)
    pair.wait_agreed()
    gone = us.status()["instance"]
    us.kill()
    answer = collect(eu)
    assert answer["removed"] == 0 and answer["blocked"]["reason"] in (Code.MEMBER_SILENT, Code.MEMBER_UNREACHABLE)
    assert (answer["blocked"]["detail"]["instance"], answer["blocked"]["detail"]["address"]) == (gone, us.url)
    assert {one["reason"] for one in answer["decisions"]} == {Code.BLOCKED}
    for words in ([], ["--dry-run"]):
        said = concord("gc", *words, eu.url).stdout
        assert f"concord forget {eu.url} {gone[:12]}" in said
        assert said.count("  kept: ") == len(image.blobs)
    us.start()
    wait_until(lambda: collect(eu)["removed"] == len(image.blobs), 20)


def test_a_dry_run_says_of_everything_what_would_become_of_it_and_why(tmp_path):
    # The grace is longer than a command line takes to start on a busy machine: one starts in that of the late upload.
    with running_cluster(tmp_path, ["eu", "us"], gc_grace_s="8", gc_interval_s="0") as cluster:
        eu, us = cluster.servers
        image = images.image("gone", layer_bytes=3000)
        eu.client.push("app", "v1", image)
        delete_tag_and_manifest(eu, "app", image)
        cluster.wait_agreed()
        collect(eu, dry_run=True)  # from now on the grace counts

        def dry():
            said = concord("gc", "--dry-run", eu.url).stdout
            return said if "0 contents would be removed" not in said else ""

        said = wait_until(dry)
        size = sum(map(len, image.blobs))
        assert said.count("bytes  would be removed: ") == 3
        assert f"3 contents would be removed, {size} bytes; 0 that no manifest names would be kept; 1 manifests" in said
        assert said.endswith("nothing was changed: this was a dry run\n")
        assert eu.status()["blobs"] == 3

        def decision_on(digest):
            decisions = json.loads(concord("gc", "--dry-run", "--json", eu.url).stdout)["decisions"]
            return next(one for one in decisions if one["digest"] == digest)

        asked = sha256(image.blobs[0])
        us.client.head(f"/v2/app/blobs/{asked}")
        wait_until(lambda: decision_on(asked)["reason"] == Code.REFERENCED_ELSEWHERE)
        assert decision_on(asked)["detail"]["instance"] == us.status()["instance"]
        late = eu.client.push_blob("app", b"on its way")
        decisions = collect(eu, dry_run=True)["decisions"]
        assert [one["reason"] for one in decisions if one["digest"] == late] == [Code.GRACE_PERIOD]
        said = concord("gc", eu.url).stdout
        assert "2 contents removed" in said and "; 2 that no manifest names kept; 1 manifests" in said


def test_what_another_instance_was_asked_for_is_not_removed(pair):
    """A pusher was told at us that the layer exists, and will not upload it."""
    eu, us = pair.servers
    image = images.image("asked", layer_bytes=3000)
    for blob in image.blobs:
        eu.client.push_blob("app", blob)
    pair.wait_agreed()
    assert all(us.client.head(f"/v2/app/blobs/{sha256(blob)}").status == 200 for blob in image.blobs)
    answer = collect(eu)
    assert answer["removed"] == 0 and {one["reason"] for one in answer["decisions"]} == {Code.REFERENCED_ELSEWHERE}
    assert us.client.put_manifest("app", "v1", image.body, image.media_type).status == 201
    assert us.client.pull("app", "v1") == image.body


def test_untagged_manifests_go_when_asked_for_but_not_what_belongs_to_kept_ones(pair):
    eu, us = pair.servers
    child, lonely = images.image("child", layer_bytes=100), images.image("lonely", layer_bytes=100)
    index = images.index(child)
    eu.client.push("app", "v1", index)
    eu.client.push("app", lonely.digest, lonely)
    signature = images.artifact(b"signed", "application/x.signature", subject=child)
    eu.client.push("app", signature.digest, signature)
    pair.wait_agreed()
    assert collect(us, untagged_older_than_s=3600)["untagged"] == {}
    assert collect(us, untagged_older_than_s=0, dry_run=True)["untagged"] == {"app": [lonely.digest]}
    assert us.client.get(f"/v2/app/manifests/{lonely.digest}").status == 200
    assert collect(us, untagged_older_than_s=0)["untagged"] == {"app": [lonely.digest]}
    pair.wait_agreed()
    for server in (eu, us):
        assert server.client.get(f"/v2/app/manifests/{lonely.digest}").status == 404
        assert server.client.get(f"/v2/app/manifests/{signature.digest}").status == 200
        assert server.client.pull("app", "v1") == index.body


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"untagged_older_than_s": -1}', b'{"dry": true}', b"[" * 3000])
def test_a_malformed_question_changes_nothing(pair, body):
    answer = pair.servers[0].client.request("POST", "/_concord/gc", body)
    assert answer.status == 400 and answer.code == "UNSUPPORTED"


PUSHES, COLLECTIONS, REMOVING = 2000, 200, 150


def test_pushes_against_collections_over_shared_layers(tmp_path):
    """As docker pushes: HEAD, upload only what is missing, manifest. What was answered is whole in the end."""
    layers = [random.Random(number).randbytes(500) for number in range(12)]
    lost, refused, pushed, removing = [], [], [], []
    with running_cluster(tmp_path, ["eu", "us"], gc_grace_s="1", gc_interval_s="0") as cluster:
        numbers = itertools.count()

        def push(worker):
            drawn, mine = random.Random(worker), cluster.servers[worker % 2].client
            while len(pushed) < PUSHES or sum(removing) < REMOVING:
                number = next(numbers)
                image = images.of_layers(drawn.sample(layers, 3), f"{number}")
                tag, repository = f"t{worker}-{number % 4}", f"app{worker % 3}"
                for blob in image.blobs:
                    if mine.head(f"/v2/{repository}/blobs/{sha256(blob)}").status != 200:
                        mine.push_blob(repository, blob)
                answer = mine.put_manifest(repository, tag, image.body, image.media_type)
                (pushed if answer.status == 201 else refused).append((repository, tag, image))
                if answer.status == 201 and drawn.random() < 0.5:
                    mine.delete(f"/v2/{repository}/manifests/{image.digest}")

        def gather(server):
            while len(removing) < COLLECTIONS or len(pushed) < PUSHES:
                begun = time.monotonic()
                answer = collect(server, untagged_older_than_s=0)
                removing.append(answer["removed"] > 0)
                time.sleep(max(0.15 - (time.monotonic() - begun), 0))

        threads = [threading.Thread(target=push, args=(worker,)) for worker in range(6)]
        threads += [threading.Thread(target=gather, args=(server,)) for server in cluster.servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cluster.wait_agreed()
        for server in cluster.servers:
            for repository in ("app0", "app1", "app2"):
                for tag in server.client.tags(repository):
                    try:
                        server.client.pull(repository, tag)
                    except AssertionError as broken:
                        lost.append((server.url, repository, tag, broken))
        print(f"{len(pushed)} pushed, {len(refused)} refused, {sum(removing)} of {len(removing)} passes removed")
        assert not lost
        assert sum(removing) >= REMOVING
        assert len(refused) <= PUSHES // 100, "a push that was told that a layer is there is rarely refused"


def test_a_file_that_a_kill_left_is_removed_by_a_collection_beside_workers(tmp_path):
    with running_server(tmp_path / "data", workers="2") as server:
        blob = os.urandom(1000)
        server.client.push_blob("app", blob)
        left = os.urandom(2000)
        path = path_of(server, sha256(left))
        server.kill()
        path.write_bytes(left)
        server.start()
        assert server.client.head(f"/v2/app/blobs/{sha256(left)}").status == 404
        dry = server.client.request("POST", "/_concord/gc", b'{"dry_run": true}').json()
        assert (dry["orphaned_files"], path.exists()) == (0, True)
        done = server.client.request("POST", "/_concord/gc", b"{}").json()
        assert (done["orphaned_files"], done["orphaned_bytes"]) == (1, 2000)
        assert not path.exists() and server.client.get(f"/v2/app/blobs/{sha256(blob)}").body == blob
        assert b"concord_orphaned_files_removed_bytes_total 2000.0" in server.client.get("/metrics").body

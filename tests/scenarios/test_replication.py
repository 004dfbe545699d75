"""Where a tag is, asked at any instance of a cluster: the tag, its manifest, and what that refers to."""

import json
import subprocess
import sys

import pytest

from registry.catalog.queries import Queries, TagFact
from registry.cluster.rpc.messages import ReplicationResponse
from registry.http.admin import tag_locations as replication
from registry.http.admin.tag_locations import MAX_PARTS, MemberAnswer, Parts, _shown, parts_of
from registry.oci.manifest import parse_manifest
from registry.oci.names import digest_of
from tests.support import images
from tests.support.server import running_cluster, wait_until

IMAGES = [images.image("one"), images.image("two", layers=3)]
INDEX = images.index(*IMAGES)


def concord(*words):
    command = [sys.executable, "-m", "registry", "replication", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("replication"), ["eu", "us", "ap"]) as running:
        running[0].client.push("app/web", "v1", INDEX)
        running.wait_agreed()
        yield running


def standing(asked, of):
    """Return what an instance says of another."""
    return standing_of(asked, of.status()["instance"])


def standing_of(asked, instance):
    answer = asked.client.get("/_concord/replication/app/web/v1")
    assert answer.status == 200, answer
    return next(one for one in answer.json()["instances"] if one["instance"] == instance)


def bodies_are_everywhere(cluster):
    return all(standing(cluster[0], server)["manifests_held"] == 3 for server in cluster.servers if server.process)


def test_what_each_instance_has_is_told_by_any_of_them(cluster):
    wait_until(lambda: bodies_are_everywhere(cluster))
    for asked in cluster.servers:
        said = asked.client.get("/_concord/replication/app/web/v1").json()
        assert (said["digest"], said["manifests"], said["blobs"], said["whole"]) == (INDEX.digest, 3, 7, True)
        assert len(said["instances"]) == 3
        at_eu = standing(asked, cluster[0])
        assert (at_eu["answers"], at_eu["fact"], at_eu["manifest"], at_eu["missing"]) == (True, "wins", True, [])
        at_us = standing(asked, cluster[1])
        assert (at_us["fact"], at_us["manifests_held"], at_us["blobs_held"], at_us["missing_count"]) == (
            "wins",
            3,
            0,
            7,
        )


def test_a_pull_brings_content_and_nothing_else_does(cluster):
    config = images.descriptor(IMAGES[0].blobs[0], "")["digest"]
    assert standing(cluster[0], cluster[2])["blobs_held"] == 0
    assert cluster[2].client.get(f"/v2/app/web/blobs/{config}").status == 200
    wait_until(lambda: standing(cluster[0], cluster[2])["blobs_held"] == 1)
    assert config not in standing(cluster[1], cluster[2])["missing"]


def test_the_command_prints_a_table_and_says_by_its_status_whether_the_tag_is_everywhere(cluster):
    wait_until(lambda: bodies_are_everywhere(cluster))
    done = concord("app/web:v1", cluster[1].url)
    assert (done.returncode, done.stdout.count("3 of 3"), "7 of 7" in done.stdout) == (0, 3, True)
    assert json.loads(concord("--json", "app/web:v1", cluster[1].url).stdout)["digest"] == INDEX.digest
    missing = concord("app/web:nonsense", cluster[1].url)
    assert (missing.returncode, "no instance that answers has this tag" in missing.stderr) == (2, True)
    assert concord("app/web", cluster[1].url).returncode == 2


@pytest.mark.parametrize("path", ["app/web/", "app/web/bad%20tag", "/v1", "APP/v1", "v1"])
def test_names_that_are_none_are_refused(cluster, path):
    assert cluster[0].client.get(f"/_concord/replication/{path}").status == 400


def test_one_that_does_not_answer_is_shown_in_time(tmp_path):
    with running_cluster(tmp_path, ["eu", "us", "ap"]) as cluster:
        cluster[0].client.push("app/web", "v1", IMAGES[0])
        cluster.wait_agreed()
        hanging, dead = cluster[1].status()["instance"], cluster[2].status()["instance"]
        cluster[1].pause()
        cluster[2].kill()
        client = cluster[0].client
        client.timeout_s = 4.0
        answer = client.get("/_concord/replication/app/web/v1").json()
        said = {one["instance"]: one for one in answer["instances"]}
        assert not said[hanging]["answers"] and said[hanging]["problem"]
        assert not said[dead]["answers"] and said[dead]["problem"]
        assert concord("app/web:v1", cluster[0].url).returncode == 1
        cluster[1].resume()
        wait_until(lambda: standing_of(cluster[0], dead)["problem"] == "it is not heard")


FACT = ("sha256:" + "a" * 64, 5, 6)


@pytest.mark.parametrize(
    ("fact", "said"),
    [(FACT, "wins"), (None, "none"), (("sha256:" + "b" * 64, 4, 9), "older"), ((FACT[0], 4, 6), "older")],
)
def test_another_fact_than_the_one_that_wins_is_told_apart(fact, said):
    shown = _shown(
        MemberAnswer("i", "s", "a", ReplicationResponse(fact, []), ""), TagFact(*FACT), Parts([FACT[0]], [], True)
    )
    assert shown["fact"] == said


class Bodies(Queries):
    """Manifests by their digest, without a database."""

    def __init__(self, *bodies):
        self._parts = {digest_of(body): parse_manifest(body, None).parts() for body in bodies}
        self.reads = 0

    def has_body(self, digest):
        return digest in self._parts

    def parts_of(self, manifest):
        self.reads += 1
        return self._parts.get(manifest, [])


async def test_parts_of_an_index_whose_child_is_not_here_are_not_all():
    assert (await parts_of(Bodies(INDEX.body, IMAGES[0].body), INDEX.digest)).whole is False
    assert (await parts_of(Bodies(INDEX.body, *(image.body for image in IMAGES)), INDEX.digest)).whole is True


async def test_parts_that_manifests_share_are_looked_up_no_further_than_a_bound(monkeypatch):
    monkeypatch.setattr(replication, "MAX_LOOKED_UP", 100)
    children = [images.image(number, layers=9) for number in range(30)]
    index = images.index(*children)
    bodies = Bodies(index.body, *(child.body for child in children))
    parts = await parts_of(bodies, index.digest)
    assert parts.whole is False and bodies.reads < 15


async def test_parts_are_bounded():
    many = images.index(*(images.image(number, layers=1) for number in range(MAX_PARTS + 5)))
    parts = await parts_of(Bodies(many.body), many.digest)
    assert (len(parts.manifests) + len(parts.blobs), parts.whole) == (MAX_PARTS, False)


async def test_manifests_within_manifests_are_walked_no_further_than_that():
    deepest = chain = [images.image("deep")]
    for _ in range(MAX_PARTS + 50):
        chain = [*chain, images.index(chain[-1])]
    bodies = Bodies(*(image.body for image in chain))
    parts = await parts_of(bodies, chain[-1].digest)
    assert (bodies.reads, len(parts.manifests), parts.whole) == (MAX_PARTS, MAX_PARTS, False)
    assert deepest[0].digest not in parts.manifests

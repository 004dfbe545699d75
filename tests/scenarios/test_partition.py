"""Two sites that cannot reach each other: what happens to pushes and deletes, and how they agree again."""

import pytest

from tests.support import images
from tests.support.network import hosted_cluster
from tests.support.server import wait_until

REDIS = 2
OLD, EU, US = images.image("old"), images.image("from eu"), images.image("from us")


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    with hosted_cluster(tmp_path_factory.mktemp("hosted"), ["eu", "us"]) as (cluster, network):
        yield cluster, network


@pytest.fixture
def eu_us(hosted):
    cluster, network = hosted
    network.heal()
    cluster.wait_acquainted()
    cluster.wait_agreed()
    return cluster[0], cluster[1], cluster, network


def heal(cluster, network):
    network.heal()
    return cluster.wait_agreed(timeout_s=30)


def test_the_same_tag_pushed_at_both_sides_has_one_winner_and_a_listed_conflict(eu_us, repository):
    eu, us, cluster, network = eu_us
    network.partition([0, REDIS], [1])
    eu.client.push(repository, "v1", EU)
    us.client.push(repository, "v1", US)
    assert eu.client.pull(repository, "v1") == EU.body
    assert us.client.pull(repository, "v1") == US.body
    heal(cluster, network)
    listed = [server.client.get("/_concord/conflicts").json() for server in (eu, us)]
    assert listed[0] == listed[1]
    (conflict,) = [entry for entry in listed[0]["conflicts"] if entry["repository"] == repository]
    assert conflict["winner"]["digest"] == US.digest, "the later push wins"
    assert [other["digest"] for other in conflict["others"]] == [EU.digest]
    for server in (eu, us):
        assert server.client.pull(repository, "v1") == US.body
        assert server.client.pull(repository, EU.digest) == EU.body
    eu.client.push(repository, "v1", EU)
    cluster.wait_agreed()
    for server in (eu, us):
        assert server.client.pull(repository, "v1") == EU.body
        remaining = server.client.get("/_concord/conflicts").json()["conflicts"]
        assert repository not in [entry["repository"] for entry in remaining]


def test_a_push_survives_a_delete_of_the_same_tag_that_did_not_see_it(eu_us, repository):
    eu, us, cluster, network = eu_us
    eu.client.push(repository, "v1", OLD)
    cluster.wait_agreed()
    network.partition([0, REDIS], [1])
    assert eu.client.delete(f"/v2/{repository}/manifests/v1").status == 202
    us.client.push(repository, "v1", US)
    heal(cluster, network)
    for server in (eu, us):
        assert server.client.pull(repository, "v1") == US.body


def test_a_push_survives_a_delete_of_its_manifest_that_did_not_see_it(eu_us, repository):
    eu, us, cluster, network = eu_us
    eu.client.push(repository, "v1", OLD)
    cluster.wait_agreed()
    network.partition([0, REDIS], [1])
    assert eu.client.delete(f"/v2/{repository}/manifests/{OLD.digest}").status == 202
    assert us.client.put_manifest(repository, "v2", OLD.body, OLD.media_type).status == 201
    heal(cluster, network)
    for server in (eu, us):
        assert server.client.pull(repository, "v2") == OLD.body
        assert server.client.tags(repository) == ["v2"]


def test_a_pushed_index_survives_a_delete_of_its_childs_blobs(eu_us, repository):
    eu, us, cluster, network = eu_us
    index = images.index(EU, US)
    eu.client.push(repository, "v1", index)
    cluster.wait_agreed()
    network.partition([0, REDIS], [1])
    for blob in EU.blobs:
        eu.client.delete(f"/v2/{repository}/blobs/{images.descriptor(blob, '')['digest']}")
    eu.client.delete(f"/v2/{repository}/manifests/{EU.digest}")
    assert us.client.put_manifest(repository, "v2", index.body, index.media_type).status == 201
    heal(cluster, network)
    for server in (eu, us):
        assert server.client.pull(repository, "v2") == index.body


def test_a_delete_that_everyone_saw_stays(eu_us, repository):
    eu, us, cluster, network = eu_us
    eu.client.push(repository, "v1", OLD)
    cluster.wait_agreed()
    us.client.delete(f"/v2/{repository}/manifests/{OLD.digest}")
    cluster.wait_agreed()
    network.partition([0, REDIS], [1])
    us.client.push(repository, "v2", US)
    heal(cluster, network)
    for server in (eu, us):
        assert server.client.tags(repository) == ["v2"]
        assert server.client.get(f"/v2/{repository}/manifests/{OLD.digest}").status == 404


def test_both_sides_keep_serving_and_taking_pushes_meanwhile(eu_us, repository):
    eu, us, cluster, network = eu_us
    eu.client.push(repository, "v1", OLD)
    cluster.wait_agreed()
    us.client.pull(repository, "v1")
    network.partition([0, REDIS], [1])
    for number in range(5):
        for site, server in (("eu", eu), ("us", us)):
            server.client.push(repository, f"{site}{number}", images.image((site, number)))
    assert us.client.pull(repository, "v1") == OLD.body
    heal(cluster, network)
    for server in (eu, us):
        assert len(server.client.tags(repository)) == 11
        wait_until(
            lambda server=server: server.client.pull(repository, "eu3") and server.client.pull(repository, "us3")
        )

"""Access control at two sites of real instances: replicated, changed on both sides of a partition, never on Redis."""

import re
import socket
import threading
import time

import pytest

from registry.cli.client import NoAnswer, act
from tests.support.network import hosted_cluster
from tests.support.server import KEY, running_cluster, wait_until

pytestmark = pytest.mark.slow
REDIS = 2


def ask(server, path, **request):
    return act(server.url, f"/_concord/access/{path}", request, [KEY])


def rights(server, account, repository="team/app"):
    return set(ask(server, "explain", account=account, repository=repository)["rights"])


def agreed(cluster):
    """Wait until both instances have one revision of access control."""

    def revisions():
        return {ask(server, "list")["revision"] for server in cluster.servers}

    wait_until(lambda: len(revisions()) == 1, timeout_s=30)


@pytest.fixture(scope="module")
def hosted(tmp_path_factory):
    with hosted_cluster(tmp_path_factory.mktemp("access"), ["eu", "us"]) as (cluster, network):
        ask(cluster[0], "account/create", name="root", password="the root password", admin=True)
        agreed(cluster)
        yield cluster, network


@pytest.fixture
def eu_us(hosted):
    cluster, network = hosted
    network.heal()
    cluster.wait_acquainted()
    agreed(cluster)
    return cluster[0], cluster[1], cluster, network


def cut(cluster, network):
    network.partition([0, REDIS], [1])


def heal(cluster, network):
    network.heal()
    agreed(cluster)


def test_a_grant_at_one_site_is_in_force_at_the_other(eu_us):
    eu, us, cluster, _ = eu_us
    ask(eu, "robot/create", name="ci")
    ask(eu, "grant", subject="ci", repositories="team/*", rights=["pull", "push"])
    wait_until(lambda: us.status()["access"]["revision"] == eu.status()["access"]["revision"], timeout_s=5)
    assert rights(us, "ci") == {"pull", "push"} and rights(us, "ci", "other") == set()
    remaining = ask(us, "revoke", subject="ci", repositories="team/app")["remaining"]
    assert [way["repositories"] for way in remaining] == ["team/*"]
    assert ask(us, "revoke", subject="ci", repositories="*")["remaining"] == []
    agreed(cluster)
    assert rights(eu, "ci") == set()


def test_a_revocation_wins_over_a_grant_on_the_other_side_of_a_partition(eu_us):
    eu, us, cluster, network = eu_us
    ask(eu, "robot/create", name="parted")
    agreed(cluster)
    cut(cluster, network)
    begun = time.monotonic()
    ask(eu, "revoke", subject="parted", repositories="*")
    assert time.monotonic() - begun < 5, "it waits for the other site for a moment only"
    ask(us, "grant", subject="parted", repositories="team/*", rights=["pull"])
    assert rights(us, "parted") == {"pull"}, "in force where the revocation is not known"
    heal(cluster, network)
    assert rights(us, "parted") == rights(eu, "parted") == set()
    ask(us, "grant", subject="parted", repositories="team/*", rights=["pull"])
    agreed(cluster)
    assert rights(eu, "parted") == {"pull"}, "it has seen the revocation"


def test_accounts_of_one_name_on_both_sides_are_two_and_listed(eu_us):
    eu, us, cluster, network = eu_us
    cut(cluster, network)
    first = ask(eu, "account/create", name="twin", password="one password")["id"]
    second = ask(us, "account/create", name="twin", password="another password")["id"]
    ask(us, "grant", subject="twin", repositories="team/*", rights=["pull"])
    heal(cluster, network)
    for server in (eu, us):
        (renamed,) = [one for one in ask(server, "conflicts")["conflicts"] if one["conflict"] == "renamed"]
        assert renamed["said"]["account"] == second and renamed["shown_as"] == f"twin~{second[:12]}"
        names = {one["id"]: one["name"] for one in ask(server, "account/list")["accounts"]}
        assert (names[first], names[second]) == ("twin", f"twin~{second[:12]}")
        assert rights(server, "twin") == set() and rights(server, f"twin~{second[:12]}") == {"pull"}


def test_enforcement_reaches_every_instance_and_its_end_does_not_exist(eu_us):
    eu, us, cluster, _ = eu_us
    ask(us, "enforce")
    agreed(cluster)
    assert [server.client.get("/_concord/status").status for server in (eu, us)] == [401, 401]
    with pytest.raises(NoAnswer, match="409"):
        ask(eu, "account/remove", name="root")


def subscribed(redis):
    """Return everything that is published on a Redis, in a list that grows."""
    heard = bytearray()
    connection = socket.create_connection((redis.host, redis.port), 5)
    connection.sendall(b"PSUBSCRIBE *\r\n")

    def listen():
        while data := connection.recv(65536):
            heard.extend(data)

    threading.Thread(target=listen, daemon=True).start()
    wait_until(lambda: b"psubscribe" in heard)
    return heard


def test_facts_of_access_control_are_announced_on_redis_and_never_sent_there(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], workers="2") as cluster:
        heard = subscribed(cluster.redis)
        eu, us = cluster.servers
        ask(eu, "account/create", name="root", password="the root password", admin=True)
        ask(eu, "robot/create", name="ci")
        key = ask(eu, "key/create", account="ci")["key"]
        agreed(cluster)
        assert [one["name"] for one in ask(us, "account/list")["accounts"]] == ["ci", "root"]
        wait_until(lambda: bytes(heard).count(b"\x06access") == 3)  # each change is announced
        assert not re.search(rb"argon2|!account|!credential|" + key.encode(), bytes(heard))
        for server in cluster.servers:
            assert "the root password" not in server.log.read_text() and key not in server.log.read_text()
            assert "argon2" not in server.log.read_text()
        for server in cluster.servers:
            assert server.stop() == 0
            server.start()
        assert [one["name"] for one in ask(us, "account/list")["accounts"]] == ["ci", "root"]

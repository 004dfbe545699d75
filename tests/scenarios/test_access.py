"""Access control of a whole cluster: what is granted and revoked at one site is in force at all, also after a
partition, and the commands of an operator."""

import time
from contextlib import contextmanager

import pytest

from tests.cli.test_cli import concord, refused
from tests.support import images
from tests.support.access import ADMINISTRATOR, PASSWORD, act, basic, done, enforce
from tests.support.network import hosted_cluster
from tests.support.server import running_cluster, wait_until

IMAGE = images.image("access", layer_bytes=1000)
MANIFEST = "/v2/team/app/manifests/v1"


def status(server, headers=None, method="GET", path=MANIFEST, body=None):
    return server.client.request(method, path, body, headers or {}).status


def robot(server, name, pattern, *rights):
    """Make a robot with rights. Return the header that it sends."""
    done(server, "robot/create", name=name)
    done(server, "grant", subject=name, repositories=pattern, rights=rights)
    return basic(name, done(server, "key/create", account=name)["key"])


@pytest.fixture
def cluster(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"], workers="2") as cluster:
        cluster[0].client.push("team/app", "v1", IMAGE)
        cluster.wait_agreed()
        yield cluster


def test_what_is_said_at_one_site_is_in_force_at_the_other(cluster):
    eu, us = cluster.servers
    assert status(us) == 200, "nothing is asked for before"
    enforce(eu)
    wait_until(lambda: status(us) == 401)
    assert status(eu) == 401
    root = basic(ADMINISTRATOR, PASSWORD)
    assert [status(server, root) for server in (eu, us)] == [200, 200]
    ci = robot(eu, "ci", "team/*", "pull")
    wait_until(lambda: status(us, ci) == 200)
    put = {"Content-Type": IMAGE.media_type} | ci
    assert status(us, put, "PUT", "/v2/team/app/manifests/v2", IMAGE.body) == 403
    done(us, "grant", subject="ci", repositories="team/app", rights=["push"])
    wait_until(lambda: status(eu, put, "PUT", "/v2/team/app/manifests/v2", IMAGE.body) == 201)
    assert done(us, "revoke", subject="ci", repositories="*")["remaining"] == []
    wait_until(lambda: status(eu, ci) == 403)
    assert status(us, ci) == 403


def test_a_client_cannot_administer_and_a_removed_account_can_do_nothing(cluster):
    eu, us = cluster.servers
    enforce(eu)
    ci = robot(eu, "ci", "*", "pull", "push", "delete")
    wait_until(lambda: status(us, ci) == 200)
    for server in (eu, us):
        for path in ("/_concord/status", "/_concord/conflicts"):
            assert status(server, ci, path=path) == 403 and status(server, path=path) == 401
        answer = server.client.request("POST", "/_concord/gc", b"{}", ci | {"Content-Type": "application/json"})
        assert answer.status == 403
    done(us, "account/remove", name="ci")
    wait_until(lambda: status(eu, ci) == 401)
    assert status(us, ci) == 401
    assert act(eu, "account/remove", name=ADMINISTRATOR).status == 409, "the last administrator stays"


@contextmanager
def enforcing_hosts(directory):
    """Run two sites, each on a host, that enforce access control. Yield both, the network, and the header of a robot
    that may pull."""
    with hosted_cluster(directory, ["eu", "us"]) as (cluster, network):
        eu, us = cluster.servers
        eu.client.push("team/app", "v1", IMAGE)
        assert eu.stop() == 0
        words = ["account", "create", ADMINISTRATOR, "--admin", "--data", eu.data, "--password-stdin"]
        made = concord(*words, stdin=PASSWORD + "\n")
        assert made.returncode == 0, made
        eu.start()
        done(eu, "enforce")
        ci = robot(eu, "ci", "team/*", "pull")
        wait_until(lambda: status(us, ci) == 200)
        yield eu, us, network, ci


def test_a_revocation_wins_over_a_grant_that_had_not_seen_it(tmp_path):
    with enforcing_hosts(tmp_path) as (eu, us, network, ci):
        network.partition([0], [1, 2])
        done(eu, "revoke", subject="ci", repositories="team/*")
        done(us, "grant", subject="ci", repositories="team/app", rights=["pull", "push"])
        assert (status(eu, ci), status(us, ci)) == (403, 200), "each site goes by what it knows"
        network.heal()
        wait_until(lambda: status(us, ci) == 403, 30)
        assert status(eu, ci) == 403
        done(us, "grant", subject="ci", repositories="team/app", rights=["pull"])
        wait_until(lambda: (status(eu, ci), status(us, ci)) == (200, 200))


def test_what_was_pushed_after_a_revocation_waits_where_the_revocation_is_not_known(tmp_path):
    """Frames arrive by Redis, and facts of access control cannot, since the instances do not reach each other."""
    with enforcing_hosts(tmp_path) as (eu, us, network, ci):
        network.partition([0], [1])
        done(eu, "revoke", subject="ci", repositories="*")
        root = basic(ADMINISTRATOR, PASSWORD)
        later = "/v2/team/app/manifests/secret"
        assert status(eu, root | {"Content-Type": IMAGE.media_type}, "PUT", later, IMAGE.body) == 201

        def held():
            answer = us.client.request("GET", "/metrics", None, root)
            return b'concord_frames_total{outcome="ahead of rights"} 0' not in answer.body

        wait_until(held)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert (status(us, ci), status(us, ci, path=later)) == (200, 404), "it goes by what it knows, of both"
            time.sleep(0.1)
        network.heal()
        wait_until(lambda: status(us, ci, path=later) == 403, 30)
        wait_until(lambda: status(us, root, path=later) == 200, 30)


def test_commands_sign_in_with_a_file(cluster, tmp_path):
    eu, _ = cluster.servers
    enforce(eu)
    refused(concord("status", eu.url), "answered 401")
    login = tmp_path / "login"
    login.write_text(f"{ADMINISTRATOR}:{PASSWORD}\n")
    for words in (["status", eu.url], ["account", "list", "--url", eu.url], ["replication", "team/app:v1", eu.url]):
        ran = concord(*words, "--login", login)
        assert ran.returncode == 0 and PASSWORD not in ran.stdout + ran.stderr, ran
    assert concord("status", eu.url, CONCORD_LOGIN=str(login)).returncode == 0
    login.write_text("no colon here")
    refused(concord("status", eu.url, "--login", login), "NAME:SECRET")
    refused(concord("status", eu.url, "--login", tmp_path / "none"), "cannot be read")


@pytest.fixture
def login(tmp_path):
    """A file to sign in with as the first administrator."""
    file = tmp_path / "login"
    file.write_text(f"{ADMINISTRATOR}:{PASSWORD}\n")
    return file


def test_a_revocation_can_wait_until_all_instances_have_confirmed_it(cluster, login):
    eu, us = cluster.servers
    enforce(eu)
    ci = robot(eu, "ci", "team/*", "pull")
    wait_until(lambda: status(us, ci) == 200)
    words = ["revoke", "ci", "team/*", "--wait", "20", "--url", eu.url, "--login", login]
    ran = concord(*words)
    assert ran.returncode == 0 and "all other instances have confirmed it (1)" in ran.stdout, ran
    assert status(us, ci) == 403, "it is in force where it is confirmed"


def test_instances_that_have_not_confirmed_a_revocation_are_named(tmp_path, login):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        enforce(eu)
        robot(eu, "ci", "team/*", "pull")
        wait_until(lambda: status(us) == 401)
        words = ["revoke", "ci", "team/*", "--url", eu.url, "--login", login]
        us.pause()
        ran = concord(*words, "--wait", "1")
        assert ran.returncode == 1 and "ways remain" not in ran.stdout, ran
        assert "1 of 1 other instances have not confirmed it:" in ran.stdout and "at site us" in ran.stdout, ran
        done(eu, "grant", subject="authenticated", repositories="team/app", rights=["pull"])
        ran = concord(*words, "--wait", "1")
        us.resume()
        assert ran.returncode == 1 and "have not confirmed it:" in ran.stdout, ran
        assert "these ways remain:\n  authenticated  team/app  pull" in ran.stdout, "both findings are said"
        ran = concord(*words, "--wait", "20")
        assert ran.returncode == 1 and "have confirmed it (1)" in ran.stdout, "ways remain"
        assert concord(*words, "--wait", "-1").returncode == 2
        us.kill()
        ran = concord(*words, "--wait", "30")
        assert ran.returncode == 1 and "at site us, which is not reached" in ran.stdout, (
            "it is not waited for any longer"
        )


def test_the_holder_of_the_cluster_key_can_wait_for_a_revocation(cluster):
    eu, _ = cluster.servers
    enforce(eu)
    robot(eu, "ci", "team/*", "pull")
    words = ["revoke", "ci", "team/*", "--wait", "20", "--url", eu.url]
    ran = concord(*words, CONCORD_CLUSTER_KEY=eu.environment["CONCORD_CLUSTER_KEY"])
    assert ran.returncode == 0 and "have confirmed it" in ran.stdout, ran

"""Access control over several instances: tokens of one at another, uploads that go on elsewhere, administration."""

import os
import re

import pytest

from tests.http.access.conftest import Guarded
from tests.support.access_view import VARIABLE, Facts
from tests.support.client import sha256, with_digest
from tests.support.server import KEY, Server, running_cluster, running_server, wait_until

PREPARE = "tests.support.access_view:prepare"


def facts_setting(facts):
    return {VARIABLE.removeprefix("CONCORD_").lower(): str(facts.path)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two instances of one site, of two processes each, and their facts."""
    directory = tmp_path_factory.mktemp("pair")
    facts = Facts(directory / "facts.json", enforced=False)
    cluster = running_cluster(directory, ["eu", "eu"], prepare=PREPARE, workers="3", **facts_setting(facts))
    with cluster as started:
        facts.enforce()
        facts.grant(facts.account("alice", "password"), "team/*", "pull", "push", "delete")
        facts.grant(facts.account("bob", "password"), "team/*", "pull", "push")
        facts.grant(facts.account("root", "password"), "*", "admin")
        yield [Guarded(server, facts, "", "") for server in started.servers]


def test_a_token_of_one_instance_counts_at_the_other(pair):
    token = pair[0].token("repository:team/app:pull", "alice", "password")
    for at in pair * 2:
        assert at.ask("GET", "/v2/team/app/tags/list", token).status == 404
        assert at.ask("GET", "/v2/other/app/tags/list", token).status == 403


def test_what_is_pushed_at_one_is_pulled_at_the_other(pair):
    alice = pair[0].basic("alice", "password")
    begun = pair[0].ask("POST", f"/v2/team/pushed/blobs/uploads/?digest={sha256(b'x')}", alice, b"x")
    assert begun.status == 201
    for at in pair:
        assert at.ask("GET", f"/v2/team/pushed/blobs/{sha256(b'x')}", alice).body == b"x"


def test_an_upload_goes_on_at_another_instance_for_its_account_alone(pair):
    alice, bob = (pair[0].basic(name, "password") for name in ("alice", "bob"))
    for attempt in range(6):  # at whichever processes
        content = os.urandom(1000)
        location = pair[0].ask("POST", "/v2/team/app/blobs/uploads/", alice, b"").headers["Location"]
        assert pair[1].ask("PATCH", location, bob, b"theirs").status == 404
        patched = pair[1].ask("PATCH", location, alice, content)
        assert patched.status == 202, (attempt, patched)
        location = patched.headers["Location"]
        assert pair[1].ask("GET", location, bob).status == 404
        assert pair[1].ask("GET", location, alice).status == 204
        assert pair[0].ask("PUT", with_digest(location, sha256(content)), bob, b"").status == 404
        assert pair[1].ask("PUT", with_digest(location, sha256(content)), alice, b"").status == 201


def test_peers_go_on_without_any_credential(pair):
    root = pair[0].basic("root", "password")
    members = pair[0].ask("GET", "/_concord/status", root).json()["members"]
    assert [member["live"] for member in members] == [True]


def test_administration_needs_a_right_or_the_cluster_key(pair):
    from registry.cli.client import NoAnswer, act

    at = pair[0]
    for headers, status in (
        ({}, 401),
        (at.basic("alice", "password"), 403),
        (at.token("registry:admin:*", "root", "password"), 200),
        (at.token("repository:team/app:*", "root", "password"), 401),
        (at.basic("root", "password"), 200),
    ):
        json = {"Content-Type": "application/json"}
        assert at.ask("POST", "/_concord/gc", headers | json, b'{"dry_run": true}').status == status
        answer = at.ask("GET", "/_concord/status", headers)
        assert answer.status == status
    assert act(at.server.url, "/_concord/gc", {"dry_run": True}, [KEY])
    with pytest.raises(NoAnswer):
        act(at.server.url, "/_concord/gc", {"dry_run": True}, ["another key of the cluster"])
    forged = {"Concord-Session": "x", "Concord-MAC": "y", "Concord-Sequence": "1", "Content-Type": "application/json"}
    assert at.ask("POST", "/_concord/gc", forged, b"{}").status == 403
    assert at.ask("GET", "/_concord/status", forged).status == 401


def test_an_act_of_a_web_page_is_refused_whatever_its_rights(pair):
    at = pair[0]
    headers = at.basic("root", "password") | {"Content-Type": "application/json", "Origin": "https://evil.example"}
    assert at.ask("POST", "/_concord/gc", headers, b"{}").status == 403


def test_a_token_dies_with_the_cluster_key_that_sealed_it(tmp_path):
    facts = Facts(tmp_path / "facts.json")
    facts.grant(facts.account("alice", "password"), "team/*", "pull")
    first, second = "the first key of the cluster", "the second key of the cluster"
    server = Server(tmp_path / "data", prepare=PREPARE, cluster_key=first, **facts_setting(facts)).start()
    try:
        at = Guarded(server, facts, "", "")
        token = at.token("repository:team/app:pull", "alice", "password")
        for keys, status in ((f"{second},{first}", 404), (second, 401), (first, 404)):
            server.stop()
            server.environment["CONCORD_CLUSTER_KEY"] = keys
            server.start()
            assert at.ask("GET", "/v2/team/app/tags/list", token).status == status
    finally:
        server.kill()


def test_without_a_cluster_key_tokens_are_those_of_one_data_directory(tmp_path):
    facts = Facts(tmp_path / "facts.json")
    facts.grant(facts.account("alice", "password"), "team/*", "pull")
    settings = {"prepare": PREPARE, "workers": "2", **facts_setting(facts)}
    with running_server(tmp_path / "one", **settings) as one, running_server(tmp_path / "two", **settings) as two:
        token = Guarded(one, facts, "", "").token("repository:team/app:pull", "alice", "password")
        assert Guarded(two, facts, "", "").ask("GET", "/v2/team/app/tags/list", token).status == 401
        one.stop()
        one.start()
        for _ in range(4):
            assert Guarded(one, facts, "", "").ask("GET", "/v2/team/app/tags/list", token).status == 404


def test_the_internal_listener_is_open_for_health_and_metrics_alone(tmp_path):
    from tests.support.client import Client
    from tests.support.server import free_port

    facts = Facts(tmp_path / "facts.json")
    facts.grant(facts.account("root", "password"), "*", "admin")
    port = free_port()
    settings = {"listen_internal": f"127.0.0.1:{port}", **facts_setting(facts)}
    server = Server(tmp_path / "data", prepare=PREPARE, **settings).start(wait=False)
    try:
        internal = Client("127.0.0.1", port)

        def answers():
            try:
                return internal.get("/readyz").status == 200
            except OSError:
                return False

        wait_until(answers)
        at = Guarded(server, facts, "", "")
        root = at.basic("root", "password")
        assert internal.get("/metrics").status == internal.get("/healthz").status == 200
        assert internal.get("/_concord/status").status == 401
        assert internal.request("GET", "/_concord/status", headers=root).status == 200
        assert internal.request("POST", "/_concord/gc", b"{}", {"Content-Type": "application/json"}).status == 401
        assert internal.get("/v2/team/app/tags/list").status == 401
        assert at.ask("GET", "/metrics").status == 401, "the public listener"
        assert at.ask("GET", "/_concord/status", root).status == 404
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("settings", "headers", "realm"),
    [
        ({"trusted_proxies": "127.0.0.1"}, {"X-Forwarded-Proto": "https"}, "https://registry.example/v2/token"),
        ({"trusted_proxies": "10.0.0.1"}, {"X-Forwarded-Proto": "https"}, "http://registry.example/v2/token"),
        ({"trusted_proxies": "127.0.0.1"}, {"X-Forwarded-Proto": "javascript"}, "http://registry.example/v2/token"),
        ({"token_url": "https://hub.example/v2/token"}, {}, "https://hub.example/v2/token"),
    ],
)
def test_the_realm_is_that_of_the_address_which_the_client_has_used(tmp_path, settings, headers, realm):
    facts = Facts(tmp_path / "facts.json")
    with running_server(tmp_path / "data", prepare=PREPARE, workers="2", **settings, **facts_setting(facts)) as server:
        for _ in range(4):
            answer = server.client.request("GET", "/v2/", headers=headers | {"Host": "registry.example"})
            assert re.search(r'realm="([^"]*)"', answer.headers["WWW-Authenticate"])[1] == realm

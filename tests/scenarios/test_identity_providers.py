"""Sign-in from CI in a real cluster: an ID token is exchanged at one instance, and the token that it gets counts at
the other one, until the binding is revoked."""

from urllib.parse import urlencode

import pytest

from registry.http.access.identity_checks import ID_TOKEN_TYPE, TOKEN_EXCHANGE
from tests.support import images
from tests.support.access import act, basic, done, enforce
from tests.support.issuer import Issuer
from tests.support.server import running_cluster, wait_until

IMAGE = images.image("identity", layer_bytes=1000)
MANIFEST = "/v2/team/app/manifests/v1"
SCOPE = "repository:team/app:pull,push"


@pytest.fixture(scope="module")
def issuer():
    with Issuer() as serving:
        yield serving


@pytest.fixture
def cluster(tmp_path, issuer):
    with running_cluster(tmp_path, ["eu", "us"], workers="2") as cluster:
        cluster[0].client.push("team/app", "v1", IMAGE)
        cluster.wait_agreed()
        enforce(cluster[0])
        done(cluster[0], "robot/create", name="ci")
        done(cluster[0], "grant", subject="ci", repositories="team/*", rights=["pull"])
        yield cluster


def exchange(server, token, **fields):
    form = {"grant_type": TOKEN_EXCHANGE, "subject_token": token, "subject_token_type": ID_TOKEN_TYPE, **fields}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return server.client.request("POST", "/v2/token", urlencode(form).encode(), headers)


def status(server, headers):
    return server.client.request("GET", MANIFEST, None, headers).status


def test_an_id_token_that_is_exchanged_at_one_instance_signs_in_at_all(cluster, issuer):
    eu, us = cluster.servers
    bound = {"account": "ci", "issuer": issuer.url, "claims": {"repository_id": "42", "ref": "refs/heads/main"}}
    claims = {"repository_id": "42", "ref": "refs/heads/main", "repository": "octo/app"}
    assert exchange(eu, issuer.token(**claims)).status == 401 and not issuer.fetches, "no binding names the issuer"
    binding = done(eu, "binding/create", **bound)["id"]
    for _ in range(4):  # at each process
        answer = exchange(eu, issuer.token(**claims), scope=SCOPE)
        assert answer.status == 200 and answer.json()["scope"] == "repository:team/app:pull", answer
    token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    wait_until(lambda: status(us, token) == 200)
    assert status(eu, token) == 200 and issuer.fetches == 1
    assert exchange(eu, issuer.token(**claims | {"ref": "refs/heads/other"})).status == 401

    (listed,) = done(us, "binding/list")["bindings"]
    assert listed == {"id": binding, "expires_ms": None, **bound}
    (ci,) = [one for one in done(us, "account/list")["accounts"] if one["name"] == "ci"]
    assert ci["bindings"][0]["id"] == binding

    password = basic("ci", issuer.token(**claims))  # docker login -u ci -p TOKEN
    for server in (eu, us):
        login = server.client.request(
            "GET", f"/v2/token?service=concord&scope={SCOPE}&offline_token=true", headers=password
        )
        assert login.status == 200 and login.json()["refresh_token"], login
        assert status(server, password) == 200

    done(us, "binding/revoke", id=binding)
    assert status(us, token) == status(us, password) == 401, "at the next request"
    assert exchange(us, issuer.token(**claims)).status == 401
    wait_until(lambda: status(eu, token) == 401)
    refresh = {"grant_type": "refresh_token", "refresh_token": login.json()["refresh_token"]}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert eu.client.request("POST", "/v2/token", urlencode(refresh).encode(), headers).status == 401
    assert act(us, "binding/revoke", id=binding).status == 404

"""New instances serve no client before they have met a member, which may enforce access control."""

import contextlib
import json

from tests.support import images
from tests.support.access import basic, enforce
from tests.support.server import Cluster, running_server, wait_until

IMAGE = images.image("first", layer_bytes=1000)
MANIFEST = "/v2/team/app/manifests/v1"


def refusal(server, method="GET", path=MANIFEST):
    answer = server.client.request(method, path, b"" if method == "POST" else None)
    return answer.status, answer.json()["errors"][0]["detail"]["reason"] if answer.status == 503 else ""


def answers(server):
    with contextlib.suppress(OSError):
        return server.client.get("/healthz").status == 200
    return False


def test_a_new_instance_serves_no_client_before_it_has_met_a_member(tmp_path):
    cluster = Cluster(tmp_path, ["eu", "us"], workers="2", bootstrap="false")
    eu, us = cluster.servers
    try:
        cluster.redis.start()
        eu.environment["CONCORD_BOOTSTRAP"] = "true"
        eu.start()
        eu.client.push("team/app", "v1", IMAGE)
        enforce(eu)
        eu.pause()
        us.start(wait=False)
        wait_until(lambda: answers(us))
        for method, path in (("GET", MANIFEST), ("GET", "/v2/"), ("POST", "/v2/team/app/blobs/uploads/")):
            assert refusal(us, method, path) == (503, "access-unknown")
        body, typed = (
            b'{"name": "evil", "password": "a long password", "admin": true}',
            {"Content-Type": "application/json"},
        )
        planted = us.client.request("POST", "/_concord/access/account/create", body, typed)
        assert planted.status == 503, "an administrator made here would be one of the whole cluster"
        assert us.client.get("/_concord/status").status == 503
        assert us.client.get("/readyz").status == 503
        eu.resume()
        wait_until(lambda: us.client.get("/readyz").status == 200, 30)
        assert refusal(us) == (401, ""), "it knows that access control is enforced"
    finally:
        cluster.stop()


def test_two_new_instances_that_meet_serve_clients(tmp_path):
    cluster = Cluster(tmp_path, ["eu", "us"], bootstrap="false")
    try:
        cluster.start()
        for server in cluster.servers:
            assert server.client.get("/v2/").status == 200
    finally:
        cluster.stop()


def test_a_new_instance_that_can_meet_none_serves_clients(tmp_path):
    with running_server(tmp_path / "data", clustered=True, bootstrap="false") as server:
        assert server.client.get("/v2/").status == 200


def test_a_directory_that_has_been_in_use_serves_by_what_it_knows(tmp_path):
    cluster = Cluster(tmp_path, ["eu"], bootstrap="true")
    (eu,) = cluster.servers
    try:
        cluster.start()
        assert eu.stop() == 0
        eu.environment["CONCORD_BOOTSTRAP"] = "false"
        eu.start()
        assert eu.client.get("/v2/").status == 200
    finally:
        cluster.stop()


def test_an_old_password_does_not_come_back_with_an_instance_that_is_added(tmp_path):
    """The file that makes the first administrator is given to every instance, and stays as it was."""
    file = tmp_path / "password"
    file.write_text("the first password")
    cluster = Cluster(tmp_path, ["eu", "us"], bootstrap="false", admin_password_file=str(file))
    eu, us = cluster.servers
    try:
        cluster.redis.start()
        eu.environment["CONCORD_BOOTSTRAP"] = "true"
        eu.start()
        old, new = (basic("admin", password) for password in ("the first password", "another password"))
        for path, fields in (("account/password", {"name": "admin", "password": "another password"}), ("enforce", {})):
            headers = {"Content-Type": "application/json"} | (old if path.startswith("account") else new)
            body = json.dumps(fields).encode()
            assert eu.client.request("POST", f"/_concord/access/{path}", body, headers).status == 200
        us.start()
        for server in (eu, us):
            wait_until(lambda server=server: server.client.request("GET", "/v2/", None, new).status == 200)
            assert server.client.request("GET", "/v2/", None, old).status == 401
    finally:
        cluster.stop()

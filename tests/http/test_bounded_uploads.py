"""How many uploads may be under way at once, and what they may take of a disk budget."""

import contextlib
import http.client
import random
import socket

import pytest

from registry.telemetry.events import LogEvent
from tests.support.client import sha256, with_digest
from tests.support.server import running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
PIECE = random.Random(1).randbytes(MIB)


def append(client, location, content=PIECE):
    return client.request("PATCH", location, iter([content]))


def refused(answer):
    return answer.status, answer.code, answer.headers["Retry-After"]


def send_slowly(server, location, beginning=b"x"):
    """A PATCH whose body has begun and does not end; a socket."""
    connection = socket.create_connection((server.host, server.port))
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * MIB}\r\n\r\n"
    connection.sendall(head.encode() + beginning)
    return connection


def test_more_uploads_than_there_may_be_preempt_those_that_are_idle(tmp_path):
    with running_server(tmp_path / "data", max_uploads="3") as server:
        client = server.client
        begun = [client.begin_upload("app") for _ in range(20)]
        locations = [append(client, location).headers["Location"] for location in begun[:4]]
        gone = client.request("PATCH", locations[0], b"more")
        assert (gone.status, gone.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert client.request("POST", f"/v2/app/blobs/uploads/?digest={sha256(PIECE)}", PIECE).status == 201
        server.kill()
        server.start()
        assert [client.get(location).status for location in locations] == [404, 404, 204, 204]
        for location in begun[4:8]:
            assert append(client, location).status == 202
        assert client.get(locations[2]).status == 404, "what was there before the restart has a place, and gives it up"
        metrics = client.get("/metrics").body
        assert b"concord_uploads 3.0" in metrics and b"concord_uploads_preempted_total 3.0" in metrics


def test_uploads_that_are_all_at_work_are_not_preempted_and_more_are_429(tmp_path):
    with running_server(tmp_path / "data", max_uploads="2") as server:
        client = server.client
        begun = [client.begin_upload("app") for _ in range(3)]
        with contextlib.ExitStack() as connections:
            for location in begun[:2]:
                connections.enter_context(send_slowly(server, location))
            wait_until(lambda: server.upload_bytes() == 2)
            too_many = (429, "TOOMANYREQUESTS", "30")
            assert refused(append(client, begun[2])) == too_many, "begun before it was full"
            assert refused(client.request("POST", "/v2/app/blobs/uploads/", b"")) == too_many
            whole = f"/v2/app/blobs/uploads/?digest={sha256(PIECE)}"
            assert refused(client.request("POST", whole, PIECE)) == too_many
        wait_until(lambda: append(client, begun[2]).status == 202)


def test_a_client_behind_a_trusted_proxy_loses_no_upload_to_another_that_has_many(tmp_path):
    proxied = {"X-Forwarded-For": "203.0.113.7"}
    with running_server(tmp_path / "data", max_uploads="5", trusted_proxies="127.0.0.1") as server:
        client = server.client
        kept = client.request("PATCH", client.begin_upload("app"), PIECE, proxied).headers["Location"]
        for _ in range(10):
            client.request("PATCH", client.begin_upload("app"), b"x", {"X-Forwarded-For": "198.51.100.9"})
        assert client.request("PUT", with_digest(kept, sha256(PIECE)), b"", proxied).status == 201


def test_an_upload_that_is_passed_on_counts_for_its_clients_network_at_its_owner(tmp_path):
    settings = {"max_uploads": "4", "trusted_proxies": "127.0.0.1,10.0.0.0/8"}
    with running_cluster(tmp_path, ["eu", "eu"], **settings) as cluster:
        one, other = (server.client for server in cluster.servers)
        few, many = {"X-Forwarded-For": "203.0.113.7, 10.1.2.3"}, {"X-Forwarded-For": "198.51.100.9"}
        kept = other.request("PATCH", one.begin_upload("app"), PIECE, few).headers["Location"]
        for _ in range(8):
            assert other.request("PATCH", one.begin_upload("app"), b"x", many).status == 202
        assert other.request("PUT", with_digest(kept, sha256(PIECE)), b"", few).status == 201


@pytest.mark.parametrize(
    ("trusted", "client", "scheme"), [("127.0.0.1", "203.0.113.7", "https"), ("", "127.0.0.1", "http")]
)
def test_the_log_of_requests_has_the_client_behind_a_trusted_proxy(tmp_path, trusted, client, scheme):
    fields = {"X-Forwarded-For": "1.2.3.4, 203.0.113.7", "X-Forwarded-Proto": "https"}
    with running_server(tmp_path / "data", log_requests="1", trusted_proxies=trusted) as server:
        server.client.request("GET", "/v2/", headers=fields)
        (line,) = wait_until(lambda: server.logged(LogEvent.REQUEST_SERVED, path="/v2/", client=client))
        assert line["scheme"] == scheme


def test_an_upload_that_is_passed_on_is_refused_by_its_owner_in_the_same_words(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"], max_uploads="1") as cluster:
        one, other = cluster.servers
        first, second = one.client.begin_upload("app"), one.client.begin_upload("app")
        with send_slowly(other, first, PIECE):  # its beginning waits at the other one
            wait_until(lambda: one.upload_bytes() == MIB)
            assert refused(append(other.client, second)) == (429, "TOOMANYREQUESTS", "30")
        other.client.push_blob("app", PIECE)


def test_uploads_under_way_count_in_the_disk_budget(tmp_path):
    with running_server(tmp_path / "data", disk_budget_gib=str(4 / 1024)) as server:
        client = server.client
        locations = [
            append(client, client.begin_upload("app"), PIECE + b"%d" % n).headers["Location"] for n in range(4)
        ]
        assert refused(client.request("POST", "/v2/app/blobs/uploads/", b"")) == (503, "DENIED", "30")
        finished = client.request("PUT", with_digest(locations[0], sha256(PIECE + b"0")), b"")
        assert finished.status == 201, "what is there can be finished"
        assert refused(client.request("POST", "/v2/app/blobs/uploads/", b"")) == (503, "DENIED", "30")
        for location in locations[1:]:
            assert client.request("DELETE", location).status == 204
        assert b"concord_upload_bytes 0.0" in client.get("/metrics").body
        client.push_blob("app", PIECE)


def test_pushes_refused_for_the_budget_are_in_the_log_of_who_refused_them(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"], disk_budget_gib=str(1 / 1024)) as cluster:
        one, other = cluster.servers
        location = one.client.begin_upload("app/web")
        one.client.push_blob("app/other", PIECE + b"more")
        begun = one.client.request("POST", "/v2/app/web/blobs/uploads/", b"")
        passed_on = append(other.client, location)
        for answer in (begun, passed_on):
            assert refused(answer) == (503, "DENIED", "30")
            detail = answer.json()["errors"][0]["detail"]
            assert (detail["taken_bytes"], detail["budget_bytes"]) == (MIB + 4, MIB)
            (line,) = one.logged(LogEvent.PUSH_REJECTED, request=answer.headers["X-Request-Id"])
            assert (line["level"], line["reason"], line["repository"]) == ("warning", "disk-budget", "app/web")
            assert line["budget_bytes"] == MIB
        for _ in range(100):
            one.client.request("POST", "/v2/app/web/blobs/uploads/", b"")
        assert len(one.logged(LogEvent.PUSH_REJECTED)) < 60, "who tries on and on does not fill the log"


def test_a_body_larger_than_what_is_left_of_the_budget_is_ended_and_leaves_nothing(tmp_path):
    with running_server(tmp_path / "data", disk_budget_gib=str(4 / 1024)) as server:
        location = server.client.begin_upload("app")
        try:
            answer = server.client.request("PATCH", location, (PIECE for _ in range(64)))
            assert refused(answer) == (503, "DENIED", "30")
        except (OSError, http.client.HTTPException):
            pass  # the answer came while the body was still being sent
        wait_until(lambda: not list((server.data / "uploads").iterdir()))
        server.client.push_blob("app", PIECE)


def test_uploads_without_bytes_take_nobodys_place(tmp_path):
    with running_server(tmp_path / "data", max_uploads="3") as server:
        client = server.client
        for _ in range(10):
            location = client.begin_upload("app")
            answer = client.request("PATCH", location, b"")
            assert answer.status == 202
        assert not list((server.data / "uploads").iterdir())
        location = append(client, answer.headers["Location"]).headers["Location"]
        assert client.request("PUT", with_digest(location, sha256(PIECE)), b"").status == 201

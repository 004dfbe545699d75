"""How many uploads may be under way at once, and what they may take of a disk budget."""

import http.client
import random

from tests.support.client import sha256, with_digest
from tests.support.server import running_cluster, running_server, wait_until

MIB = 1024 * 1024
PIECE = random.Random(1).randbytes(MIB)


def append(client, location, content=PIECE):
    return client.request("PATCH", location, iter([content]))


def refused(answer):
    return answer.status, answer.code, answer.headers["Retry-After"]


def test_more_uploads_than_there_may_be_are_429_until_one_ends(tmp_path):
    with running_server(tmp_path / "data", max_uploads="3") as server:
        client = server.client
        begun = [client.begin_upload("app") for _ in range(20)]
        locations = [append(client, location).headers["Location"] for location in begun[:3]]
        too_many = ("TOOMANYREQUESTS", "30")
        assert refused(append(client, begun[3])) == (429, *too_many), "begun before it was full"
        assert refused(client.request("POST", "/v2/app/blobs/uploads/", b"")) == (429, *too_many)
        whole = f"/v2/app/blobs/uploads/?digest={sha256(PIECE)}"
        assert refused(client.request("POST", whole, PIECE)) == (429, *too_many)
        server.kill()
        server.start()
        assert refused(append(client, begun[3])) == (429, *too_many), "those with bytes are still there"
        assert client.get(locations[0]).status == 204
        assert client.request("PUT", with_digest(locations[0], sha256(PIECE)), b"").status == 201
        assert client.request("POST", whole, PIECE).status == 201
        assert append(client, begun[3]).status == 202
        assert client.request("DELETE", locations[1]).status == 204
        assert append(client, begun[4]).status == 202


def test_an_upload_that_is_passed_on_is_refused_by_its_owner_in_the_same_words(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"], max_uploads="1") as cluster:
        one, other = (server.client for server in cluster.servers)
        first, second = one.begin_upload("app"), one.begin_upload("app")
        assert append(other, first).status == 202
        assert refused(append(other, second)) == (429, "TOOMANYREQUESTS", "30")
        other.push_blob("app", PIECE)


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
            (line,) = [line for line in one.log.read_text().splitlines() if answer.headers["X-Request-Id"] in line]
            for said in ("WARNING concord.refusals", "disk budget", "repository=app/web", f"budget_bytes={MIB}"):
                assert said in line
        for _ in range(100):
            one.client.request("POST", "/v2/app/web/blobs/uploads/", b"")
        assert one.log.read_text().count("concord.refusals") < 60, "who tries on and on does not fill the log"


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

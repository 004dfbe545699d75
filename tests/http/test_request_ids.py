"""The id of a request: in its answer, in the log, and with what is asked of other instances for it."""

import functools
import re

import pytest

from registry.telemetry.events import LogEvent
from tests.support.server import running_cluster, wait_until

pytestmark = pytest.mark.slow


def test_a_harmless_id_is_taken_over(client):
    assert client.get("/v2/", X_Request_Id="from-a_proxy.7").headers["X-Request-Id"] == "from-a_proxy.7"


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, 'a"b', "a=b", "ä"])
def test_any_other_is_replaced_by_one_that_is_drawn(client, given):
    said = client.get("/v2/", X_Request_Id=given.encode()).headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{16}", said)


def test_every_answer_has_its_own(client):
    paths = ["/v2/", "/healthz", "/nonsense", "/v2/_catalog"] * 60
    assert len({client.get(path).headers["X-Request-Id"] for path in paths}) == len(paths)


def test_an_id_goes_with_the_questions_of_its_request(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"], log_level="debug") as cluster:
        cluster[0].client.request("DELETE", "/v2/app/manifests/v1", b"", {"X-Request-Id": "the-one-request"})
        own = cluster[0].status()["instance"]
        asked = functools.partial(cluster[1].logged, LogEvent.PEER_REQUEST_RECEIVED, peer=own)
        wait_until(lambda: asked(path="/diffs", request="the-one-request"))
        cluster[0].client.push_blob("app", b"x")
        for server in cluster.servers:
            with_id = server.logged(LogEvent.PEER_REQUEST_RECEIVED, path="/handshake", request="the-one-request")
            assert not with_id, "what is done for nobody has no id"


def test_an_id_goes_with_an_upload_that_is_passed_on_and_is_answered_once(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"], log_level="debug") as cluster:
        location = cluster[0].client.begin_upload("app")
        answer = cluster[1].client.request("PATCH", location, b"some", {"X-Request-Id": "passed-on"})
        assert (answer.status, answer.headers["X-Request-Id"]) == (202, "passed-on")
        asked = functools.partial(cluster[0].logged, LogEvent.PEER_REQUEST_RECEIVED)
        wait_until(lambda: asked(path="/upload", request="passed-on"))


def test_an_id_goes_with_a_question_for_another_of_the_site_and_is_answered_once(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        given = {"Concord-For": cluster[1].status()["instance"], "X-Request-Id": "relayed"}
        answer = cluster[0].client.request("POST", "/_concord/peer/changes", b"", given)
        assert answer.headers.get_all("X-Request-Id") == ["relayed"]
        assert cluster[1].status()["peer_requests_refused"], "it came there"

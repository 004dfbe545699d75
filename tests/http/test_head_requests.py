"""HEAD works wherever GET does (RFC 9110, section 9.3.2): the same status and headers, and no body."""

import socket

import pytest

from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_server

IMAGE = images.image("head", layers=1, layer_bytes=1000)
VARYING = {"date", "x-request-id", "transfer-encoding"}


@pytest.fixture(params=["1", "2"], ids=["one process", "with a worker"], scope="module")
def server(request, tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("head") / "data", workers=request.param) as running:
        running.client.push("app", "v1", IMAGE)
        yield running


PATHS = {
    "base": "/v2/",
    "manifest": "/v2/app/manifests/v1",
    "manifest by digest": f"/v2/app/manifests/{IMAGE.digest}",
    "blob": f"/v2/app/blobs/{sha256(IMAGE.blobs[1])}",
    "tags": "/v2/app/tags/list",
    "page of tags": "/v2/app/tags/list?n=1",
    "catalog": "/v2/_catalog",
    "page of the catalog": "/v2/_catalog?n=1",
    "referrers": f"/v2/app/referrers/{IMAGE.digest}",
    "health": "/healthz",
    "readiness": "/readyz",
    "metrics": "/metrics",
    "status": "/_concord/status",
    "digest": "/_concord/digest",
    "conflicts": "/_concord/conflicts",
    "scrub": "/_concord/scrub",
    "leave": "/_concord/leave",
    "replication": "/_concord/replication/app/v1",
    "unknown tag": "/v2/app/manifests/none",
    "unknown repository": "/v2/none/tags/list",
    "malformed name": "/v2/APP/tags/list",
    "malformed page": "/v2/_catalog?n=x",
    "unknown path": "/nothing",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_head_answers_as_get_does_without_a_body(server, path):
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        reader = connection.makefile("rb")
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, headers = int(reader.readline().split()[1]), {}
        while (line := reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        assert reader.readline().startswith(b"HTTP/1.1 200 "), "nothing stands between the two answers"
    answer = server.client.get(path)
    expected = {name.lower(): value for name, value in answer.headers.items()}
    assert status == answer.status
    differing = VARYING | ({"content-length"} if "content-length" not in headers or path == "/metrics" else set())
    assert {n: v for n, v in headers.items() if n not in differing} == {
        n: v for n, v in expected.items() if n not in differing
    }


def test_head_of_an_upload_says_where_it_stands(server):
    location = server.client.begin_upload("app")
    location = server.client.request("PATCH", location, b"12345").headers["Location"]
    answer = server.client.head(location)
    assert (answer.status, answer.headers["Range"]) == (204, "0-4")


def test_405_names_head_beside_get(server):
    allowed = server.client.request("PATCH", "/v2/app/tags/list").headers["Allow"]
    assert allowed == "GET, HEAD"
    assert server.client.head("/v2/app/blobs/uploads/").status == 405


def test_head_counts_no_bytes_that_were_not_sent(server):
    server.client.head("/v2/app/tags/list?n=1")
    server.client.head("/v2/app/manifests/none")
    sent = [
        line
        for line in server.client.get("/metrics").body.decode().splitlines()
        if line.startswith("concord_sent_bytes_total{") and 'method="HEAD"' in line
    ]
    assert sent and all(line.endswith(" 0.0") for line in sent)

"""Offers of another protocol are ignored (RFC 9110, section 7.8): a request that offers one is answered as one that
does not, whatever its body, and its body is never taken for a request."""

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.needs import need
from tests.support.processes import owner_of, standing_still
from tests.support.server import running_server

pytestmark = pytest.mark.slow

IMAGE = images.image("offered", layers=1, layer_bytes=200_000)
OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    "TLS": "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n",
    "websocket": "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
}
SMALL, LARGE = b"a small body", bytes(range(256)) * 2000


@pytest.fixture(params=["1", "2"], ids=["one process", "with a worker"], scope="module")
def server(request, tmp_path_factory):
    with running_server(tmp_path_factory.mktemp("offers") / "data", workers=request.param) as running:
        running.client.push("app", "v1", IMAGE)
        yield running


@contextlib.contextmanager
def connected(server):
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        yield connection, connection.makefile("rb")


def answer(reader):
    """The next answer's status, headers and body."""
    status, headers = int(reader.readline().split()[1]), {}
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        headers[name.decode().lower()] = value.strip().decode()
    return status, headers, reader.read(int(headers.get("content-length", 0)))


def request(method, target, offer="", body=b"", chunked=False, more=""):
    framing = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{OFFERS.get(offer, '')}{more}{framing}\r\n".encode()
    if not chunked:
        return head + body
    pieces = [body[at : at + 70_000] for at in range(0, len(body), 70_000)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_push_that_offers_an_upgrade_is_carried_out(server, offer, chunked, content):
    content += offer.encode() + str(chunked).encode()
    with connected(server) as (connection, reader):
        for method in ("PATCH", "PUT"):
            begun = server.client.begin_upload("app")
            target = with_digest(begun, sha256(content)) if method == "PUT" else begun
            connection.sendall(request(method, target, offer, content, chunked))
            assert answer(reader)[0] == {"PATCH": 202, "PUT": 201}[method]
        body = IMAGE.body + b" " * len(content[-9:])
        target = f"/v2/app/manifests/{sha256(body)}"
        media_type = f"Content-Type: {IMAGE.media_type}\r\n"
        connection.sendall(request("PUT", target, offer, body, chunked, media_type))
        assert answer(reader)[0] == 201
    assert server.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


@pytest.mark.parametrize("offer", OFFERS)
def test_requests_that_offer_an_upgrade_are_answered_in_order_on_one_connection(server, offer):
    layer = f"/v2/app/blobs/{sha256(IMAGE.blobs[1])}"
    expected = [IMAGE.body, IMAGE.blobs[1], b"{}", IMAGE.body]
    targets = ["/v2/app/manifests/v1", layer, "/v2/", "/v2/app/manifests/v1"]
    for _ in range(5):
        with connected(server) as (connection, reader):
            connection.sendall(b"".join(request("GET", target, offer) for target in targets))
            assert [answer(reader)[2] for _ in targets] == expected


def test_requests_that_offer_an_upgrade_behind_a_chunked_body_in_one_piece_are_answered_in_order(server):
    """Only the parser finds where such a body ends, and has the heads behind it by then."""
    begun = [server.client.begin_upload("app") for _ in range(2)]
    with connected(server) as (connection, reader):
        flood = [
            request("PATCH", begun[0], "h2c", b"first", chunked=True),
            request("GET", "/v2/app/manifests/v1", "h2c"),
            request("PATCH", begun[1], "TLS", b"second one", chunked=True),
            request("PATCH", begun[1], "TLS", b"nor this", more="Content-Range: 10-17\r\n"),
            request("GET", "/v2/app/manifests/v1"),
        ]
        connection.sendall(flood[0][:-9])
        time.sleep(0.05)
        connection.sendall(flood[0][-9:] + b"".join(flood[1:]))
        found = [answer(reader) for _ in flood]
    assert [status for status, _, _ in found] == [202, 200, 202, 202, 200]
    assert [headers.get("range") for _, headers, _ in found] == ["0-4", None, "0-9", "0-17", None]


def test_a_worker_serves_requests_that_offer_an_upgrade_while_the_primary_stands_still(tmp_path):
    with running_server(tmp_path / "data", workers="2") as server:
        server.client.push("app", "v1", IMAGE)
        with standing_still(owner_of(server)):
            for _ in range(5):
                with connected(server) as (connection, reader):
                    for target, expected in (
                        ("/v2/app/manifests/v1", IMAGE.body),
                        (f"/v2/app/blobs/{sha256(IMAGE.blobs[1])}", IMAGE.blobs[1]),
                    ):
                        connection.sendall(request("GET", target, "h2c"))
                        assert answer(reader)[2] == expected


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("cut", [0, 1, 40], ids=["whole", "behind the head", "within the body"])
def test_a_body_behind_an_offer_is_never_taken_for_a_request(server, offer, cut):
    smuggled = b"DELETE /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
    for framing, body in (
        (f"Content-Length: {len(smuggled)}", smuggled),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled)),
    ):
        begun = server.client.begin_upload("app")
        head = f"PATCH {begun} HTTP/1.1\r\nHost: x\r\n{OFFERS[offer]}{framing}\r\n\r\n".encode()
        at = len(head) + cut if cut else 0
        with connected(server) as (connection, reader):
            connection.sendall((head + body)[:at])
            time.sleep(0.05)
            connection.sendall((head + body)[at:] + request("GET", "/v2/"))
            status, headers, _ = answer(reader)
            assert (status, headers["range"]) == (202, f"0-{len(smuggled) - 1}")
            assert answer(reader)[2] == b"{}"
    assert server.client.tags("app") == ["v1"]


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Content-Length : 3\r\n",
    ],
)
def test_a_framing_that_is_refused_without_an_offer_is_refused_with_one(server, framing):
    for offer in ("", *OFFERS.values()):
        with connected(server) as (connection, reader):
            connection.sendall(f"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n{offer}{framing}\r\nabc".encode())
            assert reader.readline().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("target", ["x:80", "/v2/"])
@pytest.mark.parametrize("framing", ["", "Content-Length: 3\r\n"])
def test_connect_is_refused_and_what_follows_is_not_read(server, target, framing):
    smuggled = "DELETE /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(server) as (connection, reader):
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n{smuggled}".encode())
        assert reader.readline().startswith(b"HTTP/1.1 4")
        reader.read()
    assert server.client.tags("app") == ["v1"]


JAVA = """
import java.net.URI;
import java.net.http.*;
import java.nio.charset.StandardCharsets;

public class Push {
    public static void main(String[] a) throws Exception {
        var client = HttpClient.newHttpClient();
        for (int i = 1; i < a.length; i += 2) {
            var body = a[i].equals("GET") ? HttpRequest.BodyPublishers.noBody()
                : HttpRequest.BodyPublishers.ofString("x".repeat(300_000));
            var request = HttpRequest.newBuilder(URI.create(a[0] + a[i + 1])).method(a[i], body).build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.version());
        }
    }
}
"""


def test_javas_http_client_pushes_and_pulls(server, tmp_path):
    """It offers h2c with every request over plain HTTP."""
    need(shutil.which("java") is not None, "java is missing")
    content = b"x" * 300_000
    (tmp_path / "Push.java").write_text(JAVA)
    target = with_digest(server.client.begin_upload("app"), sha256(content))
    words = ["PUT", target, "GET", f"/v2/app/blobs/{sha256(content)}", "GET", "/v2/app/manifests/v1"]
    command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(tmp_path / "Push.java"), server.url, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split("\n")[:3] == ["201 HTTP_1_1", "200 HTTP_1_1", "200 HTTP_1_1"], done.stderr


def test_curl_that_offers_http2_pushes(server, tmp_path):
    need(shutil.which("curl") is not None, "curl is missing")
    content = Path(tmp_path / "content")
    content.write_bytes(LARGE)
    url = server.url + with_digest(server.client.begin_upload("app"), sha256(LARGE))
    command = ["curl", "-s", "--http2", "-o", "/dev/null", "-w", "%{http_code}", "-T", str(content), url]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"201"

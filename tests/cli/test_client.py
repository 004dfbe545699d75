"""What commands say that ask a running instance: where to ask, whom to trust, and no secrets."""

import http.server
import ssl
import threading

import pytest

from registry.telemetry.events import LogEvent
from tests.adapters.test_bus_tls import make_certificate
from tests.cli.test_cli import answers, concord, refused
from tests.support.client import Client
from tests.support.server import Server, free_port, running_cluster, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """An instance with an internal listener; its own address, and the internal one."""
    internal = f"127.0.0.1:{free_port()}"
    server = Server(tmp_path_factory.mktemp("apart") / "data", listen_internal=internal)
    try:
        server.start(wait=False)
        wait_until(lambda: answers(Client(*internal.split(":"))))
        yield server.url, f"http://{internal}"
    finally:
        server.kill()


@pytest.mark.parametrize(
    "words", [["status"], ["digest"], ["conflicts"], ["gc"], ["scrub"], ["leave"], ["replication", "app:v1"]]
)
def test_an_administrative_command_at_the_public_listener_is_told_of_the_internal_one(apart, words):
    refused(concord(*words, apart[0]), "answered 404", "--listen-internal", "CONCORD_URL")


def test_forget_at_the_public_listener_is_told_of_the_internal_one(apart):
    refused(concord("forget", apart[0], "abc"), "answered 404", "--listen-internal")


def test_a_404_that_says_something_of_what_was_asked_for_has_no_hint(apart):
    for words in (["forget", apart[1], "abc"], ["replication", "app:v1", apart[1]]):
        done = concord(*words)
        assert done.returncode == 2 and "answered 404" in done.stderr and "--listen-internal" not in done.stderr


def test_a_password_in_the_address_that_is_asked_is_not_shown(apart):
    for url in (
        f"http://me:secret@127.0.0.1:{free_port()}",
        apart[0].replace("://", "://me:secret@"),
        "ftp://me:secret@h",
    ):
        done = concord("status", url)
        assert done.returncode == 2 and "secret" not in done.stderr + done.stdout


@pytest.fixture
def behind_tls(tmp_path):
    """A proxy with a certificate of its own that answers one request for the status."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"root": "of-an-instance-behind-tls"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    certificate = make_certificate(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}", certificate
    server.shutdown()


def test_an_authority_that_is_named_is_trusted_and_no_other(behind_tls, tmp_path):
    url, certificate = behind_tls
    refused(concord("digest", url), "cannot be trusted", "--ca FILE")
    assert concord("digest", "--ca", certificate, url).stdout == "of-an-instance-behind-tls\n"
    assert concord("digest", url, CONCORD_CA=str(certificate)).stdout == "of-an-instance-behind-tls\n"
    other = make_certificate(tmp_path, name="other-cert")
    refused(concord("digest", "--ca", other, url), "cannot be trusted")


def test_a_file_of_authorities_that_holds_none_is_one_line(tmp_path):
    refused(concord("status", "--ca", tmp_path / "none", "https://127.0.0.1:1"), "--ca", "No such file")
    (tmp_path / "empty").touch()
    refused(concord("status", "--ca", tmp_path / "empty", "https://127.0.0.1:1"), "--ca", "no certificates")


def test_an_instance_is_forgotten_by_its_name(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        gone = cluster[1]
        gone.stop()
        gone.environment["CONCORD_INSTANCE_NAME"] = "us-1"
        gone.start()
        cluster.wait_acquainted()
        instance = gone.status()["instance"]
        gone.kill()
        refused(concord("forget", cluster[0].url, "us-2"), "no other instance is known that has the name 'us-2'")
        wait_until(lambda: not cluster[0].status()["members"][0]["live"], 30)
        assert concord("forget", cluster[0].url, "us-1").stdout == f"{instance} is removed\n"
        (line,) = cluster[0].logged(LogEvent.MEMBER_REMOVED)
        assert (line["instance"], line["name"]) == (instance, "us-1")

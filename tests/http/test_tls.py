"""TLS at a real instance: what clients are offered, and certificates that change while it serves."""

import contextlib
import datetime
import os
import re
import signal
import socket
import ssl
import threading
import time

import pytest

from registry.runtime.drain import EXIT_TIMEOUT_S
from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.client import Client, sha256
from tests.support.server import Server, running_server, wait_until
from tests.support.tls import Authority

IMAGE = images.image("tls", layers=2, layer_bytes=3000)
LARGE = os.urandom(8 << 20)
WORKERS = pytest.mark.parametrize("workers", ["1", "2"], ids=["one process", "two processes"])


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "tls")


@pytest.fixture
def server(tmp_path, authority):
    """An instance of one process."""
    with running_server(tmp_path / "data", context=authority.context(), **authority.issue().settings()) as running:
        yield running


@contextlib.contextmanager
def connected(server, context, receive_bytes=0, session=None):
    """A connection of a client whose handshake is done."""
    with socket.socket() as plain:
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.settimeout(20)
        plain.connect((server.host, server.port))
        with context.wrap_socket(plain, server_hostname=server.host, session=session) as connection:
            yield connection


def presented_serial(server, context):
    """Return the serial number of the certificate that a new connection is presented."""
    with connected(server, context) as connection:
        return int(connection.getpeercert()["serialNumber"], 16)


def received(connection):
    """Return all that is received until the other side ends the connection in order."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


# What clients are offered


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_and_http_1_is_chosen(server, authority, version):
    context = authority.context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connected(server, context) as connection:
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "http/1.1"
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_an_older_version_is_refused(server, authority):
    context = authority.context()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), connected(server, context):
        pass


def test_what_is_no_handshake_is_no_request(server):
    with socket.create_connection((server.host, server.port), 10) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert not received(connection).startswith(b"HTTP")
    assert server.client.get("/v2/").status == 200


def test_a_session_is_resumed_without_client_certificates(server, authority):
    context = authority.context()
    with connected(server, context) as first:
        first.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        first.recv(1)  # the ticket comes before
        session = first.session
    with connected(server, context, session=session) as again:
        assert again.session_reused


@WORKERS
def test_images_are_pushed_and_pulled(tmp_path, authority, workers):
    settings = authority.issue().settings()
    with running_server(tmp_path / "data", workers=workers, context=authority.context(), **settings) as server:
        server.client.push("app", "v1", IMAGE)
        large = server.client.push_blob("app", LARGE)
        for _ in range(4):
            assert server.client.pull("app", "v1") == IMAGE.body
            assert server.client.get(f"/v2/app/blobs/{large}").body == LARGE
            part = server.client.get(f"/v2/app/blobs/{large}", Range="bytes=70-5000000")
            assert (part.status, part.body) == (206, LARGE[70:5_000_001])
        assert server.logged(LogEvent.INSTANCE_STARTED, scheme="https")


def test_requests_of_one_connection_are_answered_in_order(server, authority):
    server.client.push("app", "v1", IMAGE)
    put = f"POST /v2/app/blobs/uploads/?digest={sha256(LARGE)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LARGE)}"
    base = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with connected(server, authority.context()) as connection:
        connection.sendall(base + put.encode() + b"\r\n\r\n" + LARGE + last)
        answers = received(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"201", b"200"]
    assert answers.endswith(IMAGE.body)


# Ends of connections


def test_a_slow_client_receives_the_last_answer_whole(server, authority):
    """The event loop's own transport cut it off, since the end of TLS has a time limit of its own. The answer is so
    large that the client's and the server's systems do not hold all of it."""
    content = LARGE[: 3 << 20]
    digest = server.client.push_blob("app", content)
    with connected(server, authority.context(), receive_bytes=4096) as connection:
        connection.sendall(f"GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        begun = connection.recv(1000)
        time.sleep(2.0)  # longer than a client has to agree to the end
        assert (begun + received(connection)).endswith(content)


def test_the_answer_that_refuses_a_body_reaches_a_client_that_sends_all_of_it(server, authority):
    size, head = 5 << 20, "PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
    with connected(server, authority.context()) as connection:
        connection.sendall(f"{head}{size}\r\n\r\n".encode() + bytes(size))
        answer = received(connection)  # the end of the connection is behind it
    assert answer.startswith(b"HTTP/1.1 413") and b"MANIFEST_INVALID" in answer


def test_clients_that_answer_nothing_do_not_hold_up_the_end(server, authority):
    """One agrees to no end, and one does not even finish its handshake."""
    with connected(server, authority.context()) as connection, socket.create_connection((server.host, server.port)):
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < EXIT_TIMEOUT_S


# Files that change


class Load:
    """Clients that ask without a pause, each request or each hundredth on a new connection."""

    def __init__(self, server, context):
        self.failed, self.answered = [], 0
        self._server, self._context = server, context
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in (1, 1, 100)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, requests_each):
        while not self._is_over.is_set():
            try:
                connection = Client(self._server.host, self._server.port, context=self._context).connect()
                with contextlib.closing(connection):
                    for _ in range(requests_each):
                        connection.request("GET", "/v2/app/manifests/v1")
                        response = connection.getresponse()
                        assert (response.status, response.read()) == (200, IMAGE.body)
                        self.answered += 1
            except Exception as error:
                self.failed.append(repr(error))


@WORKERS
@pytest.mark.parametrize("is_told", [False, True], ids=["files are watched", "SIGHUP"])
def test_a_certificate_is_swapped_under_load_and_no_request_fails(tmp_path, authority, workers, is_told):
    """The new one has another type of key."""
    used, context = authority.issue(), authority.context()
    interval_s = 600.0 if is_told else 1.0
    constants = {"registry.runtime.certificates.LOOK_INTERVAL_S": interval_s}
    settings = used.settings() | {"workers": workers}
    with running_server(tmp_path / "data", context=context, constants=constants, **settings) as server:
        server.client.push("app", "v1", IMAGE)
        with Load(server, context) as load:
            for number in range(2):
                new = authority.issue(rsa=number == 0)
                used.replace(new)
                if is_told:
                    server.process.send_signal(signal.SIGHUP)
                wait_until(lambda new=new: {presented_serial(server, context) for _ in range(8)} == {new.serial})
            before = load.answered
            wait_until(lambda: load.answered > before + 100)
        assert load.failed == []
        assert not server.logged(LogEvent.TLS_RELOAD_FAILED)


@WORKERS
def test_files_that_cannot_be_used_change_nothing(tmp_path, authority, workers):
    used, context = authority.issue(), authority.context()
    before = used.serial
    settings = used.settings() | {"workers": workers}
    with running_server(tmp_path / "data", context=context, **settings) as server:
        good, other = used.key.read_bytes(), authority.issue()
        used.key.write_bytes(other.key.read_bytes())
        processes = 1 if workers == "1" else int(workers)
        failed = wait_until(lambda: len(server.logged(LogEvent.TLS_RELOAD_FAILED)) >= processes and server.logged(
            LogEvent.TLS_RELOAD_FAILED
        ))  # fmt: skip
        assert failed[0]["level"] == "error"
        assert "is not the key of" in failed[0]["problem"] and str(used.key) in failed[0]["problem"]
        assert {presented_serial(server, context) for _ in range(6)} == {before}
        used.certificate.write_bytes(other.certificate.read_bytes())
        wait_until(lambda: {presented_serial(server, context) for _ in range(6)} == {other.serial})
        assert good not in server.log.read_bytes() and b"PRIVATE KEY" not in server.log.read_bytes()
        assert len(server.logged(LogEvent.TLS_RELOAD_FAILED)) == processes, "it is logged once for each change"


def test_a_process_that_is_replaced_begins_with_the_last_good_files(tmp_path, authority):
    used, context = authority.issue(), authority.context()
    settings = used.settings() | {"workers": "2"}
    with running_server(tmp_path / "data", context=context, **settings) as server:
        used.certificate.write_bytes(b"broken")
        for pid in children(server):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(server.logged(LogEvent.PROCESS_DIED)) >= 2)
        server.wait_ready()
        assert presented_serial(server, context) > 0


def children(server: Server) -> list[int]:
    found = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    with open(found) as file:
        return [int(pid) for pid in file.read().split()]


def test_the_metric_says_when_the_certificate_expires(tmp_path, authority):
    at = datetime.datetime(2033, 5, 18, 3, 33, 20, tzinfo=datetime.UTC)
    used = authority.issue(expires=at)
    with running_server(tmp_path / "data", context=authority.context(), **used.settings()) as server:
        line = 'concord_tls_certificate_expiry_timestamp_seconds{listener="public"} %s'
        assert line % "2e+09" in server.client.get("/metrics").body.decode().splitlines()
        used.replace(authority.issue(expires=at + datetime.timedelta(days=1)))
        wait_until(lambda: line % "2.0000864e+09" in server.client.get("/metrics").body.decode().splitlines())


# Certificates of clients


@pytest.fixture
def clients(tmp_path):
    return Authority(tmp_path / "clients", "clients")


@pytest.fixture
def identifying(tmp_path, authority, clients):
    """An instance that identifies clients by certificates."""
    settings = authority.issue().settings() | {"tls_client_ca": str(clients.file)}
    with running_server(tmp_path / "data", context=authority.context(), **settings) as running:
        yield running


def base(server, context):
    return Client(server.host, server.port, context=context).get("/v2/").status


def test_a_client_needs_no_certificate_and_may_have_one(identifying, authority, clients):
    assert base(identifying, authority.context()) == 200
    assert base(identifying, authority.context(clients.issue(subject="ci"))) == 200


def test_a_certificate_of_another_authority_is_refused(identifying, authority, tmp_path):
    stranger = Authority(tmp_path / "strangers", "clients").issue(subject="ci")
    with pytest.raises(OSError):
        base(identifying, authority.context(stranger))
    with pytest.raises(OSError):
        base(identifying, authority.context(authority.issue(subject="ci")))


def test_with_client_certificates_tls_1_2_is_refused_and_no_session_is_resumed(identifying, authority, clients):
    old = authority.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        base(identifying, old)
    with connected(identifying, authority.context(clients.issue(subject="ci"))) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert not (connection.session and connection.session.has_ticket)


def test_an_authority_that_is_removed_identifies_no_client_any_more(identifying, authority, clients, tmp_path):
    """Neither on a connection that was open, nor by a session that is resumed, nor by a new handshake."""
    context, other = authority.context(clients.issue(subject="ci")), Authority(tmp_path / "others", "others")
    with connected(identifying, context) as busy, connected(identifying, authority.context()) as anonymous:
        busy.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert busy.recv(12) == b"HTTP/1.1 200"
        session = busy.session
        clients.file.write_bytes(clients.file.read_bytes() + other.file.read_bytes())
        wait_until(lambda: identifying.logged(LogEvent.TLS_RELOADED))
        assert base(identifying, authority.context(other.issue(subject="x"))) == 200
        busy.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")  # one more changes nothing for those that were trusted
        assert b"HTTP/1.1 200" in busy.recv(1000) + busy.recv(1000)
        clients.file.write_bytes(other.file.read_bytes())
        received(busy)  # it ends
        with pytest.raises(OSError), connected(identifying, context, session=session) as again:
            assert not again.session_reused
            again.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not again.recv(1), "the refusal comes behind the handshake of the client"
            raise ConnectionResetError
        anonymous.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert anonymous.recv(12) == b"HTTP/1.1 200"

"""Files of TLS: which ones are a reason not to start, when changed ones are read, and who a client's names."""

import asyncio
import datetime
import logging
import socket
import subprocess
from functools import partial

import pytest

from registry.config import load_config
from registry.errors import CannotStart
from registry.http.wire.client_certificate import client_subject, has_certificate
from registry.runtime.certificates import InstanceTls, ReloadedTls
from registry.runtime.connections import ConnectionCounts
from registry.runtime.server import Server
from registry.settings.tls_files import TlsFiles
from registry.storage.upload_homes import PRIMARY_SLOT, ProcessSlot
from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.support.client import Client
from tests.support.logs import log_lines, recorded, select
from tests.support.server import KEY, free_port
from tests.support.tls import Authority

pytestmark = pytest.mark.slow


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "tls")


def files_of(certificate, authorities=""):
    return TlsFiles("tls", str(certificate.certificate), str(certificate.key), str(authorities))


# Reasons not to start


def missing(used):
    used.certificate.unlink()
    return rf"{used.certificate} \(--tls-certificate\) cannot be used: No such file or directory"


def missing_key(used):
    used.key.unlink()
    return rf"{used.key} \(--tls-key\) cannot be used: No such file or directory"


def no_certificate(used):
    used.certificate.write_text("nothing")
    return r"\(--tls-certificate\) cannot be used: it holds no certificate in PEM"


def no_key(used):
    used.key.write_text("nothing")
    return r"\(--tls-key\) cannot be used: it holds no private key in PEM"


def no_file(used):
    used.key.unlink()
    used.key.mkdir()
    return r"\(--tls-key\) cannot be used: Is a directory"


def encrypted_key(used):
    command = ["openssl", "pkcs8", "-topk8", "-in", used.key, "-out", f"{used.key}.new", "-passout", "pass:secret"]
    subprocess.run(command, check=True)
    used.key.write_bytes(used.key.with_suffix(".key.new").read_bytes())
    return r"\(--tls-key\) cannot be used: it is encrypted; expected a key without a passphrase"


@pytest.mark.parametrize("spoil", [missing, missing_key, no_certificate, no_key, no_file, encrypted_key])
def test_files_that_cannot_be_used_are_a_reason_not_to_start(authority, spoil):
    used = authority.issue()
    expected = spoil(used)
    with pytest.raises(CannotStart, match=expected) as refused:
        ReloadedTls(files_of(used))
    assert refused.value.reason == "tls-files" and "\n" not in str(refused.value)


def test_a_key_of_another_certificate_is_a_reason_not_to_start(authority):
    used, other = authority.issue(), authority.issue()
    used.key.write_bytes(other.key.read_bytes())
    with pytest.raises(
        CannotStart, match=r"\(--tls-key\) cannot be used: it is not the key of .*\(--tls-certificate\)"
    ):
        ReloadedTls(files_of(used))


def test_authorities_that_are_none_are_a_reason_not_to_start(authority, tmp_path):
    (tmp_path / "none.pem").write_text("nothing")
    with pytest.raises(CannotStart, match=r"\(--tls-client-ca\) cannot be used: it holds no certificate in PEM"):
        ReloadedTls(files_of(authority.issue(), tmp_path / "none.pem"))
    with pytest.raises(CannotStart, match=r"\(--peer-tls-ca\) cannot be used: No such file or directory"):
        ReloadedTls(TlsFiles("peer_tls", "", "", str(tmp_path / "missing.pem")))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_is_refused_once_and_by_name(tmp_path, authority, workers):
    used = authority.issue()
    no_key(used)
    words = ["--listen", f"127.0.0.1:{free_port()}", "--data", tmp_path / "data", "--workers", workers]
    words += ["--tls-certificate", used.certificate, "--tls-key", used.key]
    ended = concord("serve", *words, CONCORD_LOG_FORMAT="json")
    assert ended.returncode == 2
    assert [(line["event"], line["reason"]) for line in log_lines(ended.stderr)] == [("start_failed", "tls-files")]
    assert not (tmp_path / "data").exists()


PEER = {"peer_tls_certificate": "c", "peer_tls_key": "k", "peer_tls_ca": "a", "cluster_key": KEY}
INTERNAL = {"listen_internal": "127.0.0.1:5001"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_certificate": "c"}, "set --tls-certificate and --tls-key"),
        ({"tls_key": "k"}, "set --tls-certificate and --tls-key"),
        ({"tls_client_ca": "a"}, "with --tls-client-ca, set --tls-certificate"),
        ({"peer_tls_certificate": "c"}, "--peer-tls-certificate, --peer-tls-key and --peer-tls-ca"),
        ({"peer_tls_key": "k", "peer_tls_ca": "a"}, "--peer-tls-certificate, --peer-tls-key and --peer-tls-ca"),
        (PEER, "set --listen-internal"),
        (PEER | INTERNAL | {"advertise": "http://a"}, r"'http://a' in --advertise: expected https://"),
        (PEER | INTERNAL | {"advertise": "https://a", "peer": "https://b,http://c"}, "'http://c' in --peer"),
        (PEER | INTERNAL | {"advertise": "https://a", "advertise_site": "http://s"}, "'http://s' in --advertise-site"),
    ],
)
def test_settings_that_do_not_fit_together_are_a_reason_not_to_start(settings, message):
    with pytest.raises(CannotStart, match=message):
        load_config(settings, None)


def test_settings_come_from_a_file_and_authorities_may_stand_alone(tmp_path):
    (tmp_path / "c.toml").write_text('tls_certificate = "c"\ntls_key = "k"\npeer_tls_ca = "a"\n')
    config = load_config({}, tmp_path / "c.toml")
    assert config.tls_files == ("tls", "c", "k", "") and config.peer_tls_files == ("peer_tls", "", "", "a")
    assert not config.has_mutual_tls and config.own_url == "https://127.0.0.1:5000"


# The warning of a start without TLS


def warned(tmp_path, *words):
    """Return the warnings of plain HTTP of a start that fails behind them, for its data directory is a file."""
    (tmp_path / "file").touch()
    listen = f"0.0.0.0:{free_port()}"
    options = ["--listen", listen, *words, "--data", tmp_path / "file", "--workers", "2"]
    ended = concord("serve", *options, CONCORD_LOG_FORMAT="json")
    assert ended.returncode == 2
    return [line["level"] for line in select(log_lines(ended.stderr), LogEvent.PLAIN_HTTP_EXPOSED)]


def test_a_start_without_tls_on_an_address_of_the_network_is_one_warning(tmp_path):
    assert warned(tmp_path) == ["warning"]


@pytest.mark.parametrize(
    "words",
    [
        ["--insecure"],
        ["--trusted-proxies", "10.1.0.2"],
        ["--listen", f"127.0.0.1:{free_port()}"],
        ["--listen", f"localhost:{free_port()}"],
        ["--listen", f"[::1]:{free_port()}"],
        [],
    ],
    ids=["insecure", "proxies", "loopback", "localhost", "IPv6", "TLS"],
)
def test_nothing_is_said_where_something_encrypts_or_the_operator_knows(tmp_path, authority, words):
    if not words:
        words = [word for name, file in authority.issue().settings().items() for word in (option(name), file)]
    assert warned(tmp_path, *words) == []


def option(name):
    return f"--{name.replace('_', '-')}"


# When changed files are read


def test_files_are_read_once_they_no_longer_change(authority, caplog):
    caplog.set_level(logging.INFO, "concord.tls")
    used, other = authority.issue(), authority.issue()
    tls = ReloadedTls(files_of(used))
    before = tls.accepting
    tls.look()
    used.certificate.write_bytes(other.certificate.read_bytes())
    tls.look()
    used.key.write_bytes(other.key.read_bytes())
    tls.look()
    assert tls.accepting is before, "between the two files they do not fit together"
    tls.look()
    assert tls.accepting is not before
    for _ in range(3):
        tls.look()
    assert len(recorded(caplog.records, LogEvent.TLS_RELOADED)) == 1
    assert not recorded(caplog.records, LogEvent.TLS_RELOAD_FAILED)


def test_files_that_are_gone_are_said_once_and_the_last_ones_stay_in_use(authority, caplog):
    used = authority.issue()
    tls = ReloadedTls(files_of(used))
    before, content = tls.accepting, used.key.read_bytes()
    used.key.unlink()
    for _ in range(4):
        tls.look()
    assert tls.accepting is before
    (line,) = recorded(caplog.records, LogEvent.TLS_RELOAD_FAILED)
    assert str(used.key) in str(line["problem"])
    used.key.write_bytes(content)
    tls.look()
    tls.look()
    assert tls.accepting is not before


def test_a_removed_authority_counts_and_an_added_one_does_not(authority, tmp_path):
    first, second = Authority(tmp_path / "a", "a"), Authority(tmp_path / "b", "b")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(first.file.read_bytes())
    tls = ReloadedTls(files_of(authority.issue(), trusted))
    trusted.write_bytes(first.file.read_bytes() + second.file.read_bytes())
    tls.reload()
    assert tls.removals == 0
    trusted.write_bytes(second.file.read_bytes())
    tls.reload()
    assert tls.removals == 1


def test_an_expired_certificate_is_a_warning(authority, caplog):
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    used = authority.issue(expires=yesterday)
    ReloadedTls(files_of(used))
    assert recorded(caplog.records, LogEvent.TLS_CERTIFICATE_EXPIRED, file=str(used.certificate))


def test_without_settings_there_is_no_tls():
    assert not InstanceTls.of(load_config({}, None))


# The subject of a client's certificate


class Recording:
    """An application that keeps what each request says of its client."""

    def __init__(self):
        self.seen = []

    def direct(self, method, target, headers):
        return None

    async def __call__(self, scope, receive, send):
        self.seen.append((scope["scheme"], has_certificate(scope), client_subject(scope)))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def test_handlers_read_who_a_client_is_by_its_certificate(authority, tmp_path):
    clients = Authority(tmp_path / "clients", "clients")
    tls, app = ReloadedTls(files_of(authority.issue(), clients.file)), Recording()
    contexts = [
        authority.context(),
        authority.context(clients.issue("ci.example.com", subject="ci, builds")),
        authority.context(clients.issue("ci.example.com")),
    ]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(app, ConnectionCounts(1), ProcessSlot(PRIMARY_SLOT, 1), tls)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        for context in contexts:
            client = Client(*listening.getsockname(), context=context)
            answer = await asyncio.to_thread(partial(client.get, "/v2/"))
            assert answer.status == 204
        server.should_exit = True
        await serving
    (anonymous, named, other) = app.seen
    assert anonymous == ("https", False, None)
    assert named[:2] == ("https", True) and str(named[2]).startswith(r"CN=ci\, builds,")
    assert other[:2] == ("https", True) and "CN=" not in str(other[2])

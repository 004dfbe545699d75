"""Redis with TLS: Debian's redis-server, and certificates made by openssl."""

import logging
import os
import shutil
import subprocess

import pytest

from registry.adapters.bus import RedisBus
from registry.errors import CannotStart
from registry.telemetry.events import LogEvent
from tests.adapters.test_bus import Listener, anything
from tests.support.logs import recorded
from tests.support.needs import need
from tests.support.server import Redis, free_port


class TlsRedis(Redis):
    """Speaks TLS beside plain text: tests look by the plain port whether it answers."""

    def executable(self) -> str:
        return tls_server()

    def start(self, *_: str) -> "TlsRedis":
        self.tls_port = free_port()
        return super().start(
            *("--tls-port", str(self.tls_port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem"),
        )


def make_certificate(directory, name="cert", subject="IP:127.0.0.1"):
    """A certificate that vouches for itself, in a directory, and its key. Answers its path."""
    need(shutil.which("openssl") is not None, "openssl is missing")
    path, key = directory / f"{name}.pem", directory / f"{name.replace('cert', 'key')}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=redis", "-addext", f"subjectAltName={subject}", "-days", "2"]
    subprocess.run([*command, "-out", path, "-keyout", key], check=True, capture_output=True)
    return path


@pytest.fixture
def redis(tmp_path, request):
    need(tls_server() is not None, "a redis-server with TLS is missing: apt install redis-server")
    make_certificate(tmp_path, subject=getattr(request, "param", "IP:127.0.0.1"))
    server = TlsRedis(tmp_path).start()
    yield server
    server.kill()


def tls_server():
    """The first redis-server on the PATH with TLS: the one that Python packages bring has none."""
    for directory in os.get_exec_path():
        server = shutil.which("redis-server", path=directory)
        if server is not None:
            refused = [server, "--port", "0", "--tls-auth-clients", "nonsense"]
            if b"Bad directive" not in subprocess.run(refused, capture_output=True, check=False).stderr:
                return server
    return None


async def said_of(url, caplog):
    """What is logged once of an address that is not heard."""
    caplog.set_level(logging.INFO, "concord.bus")
    listener = Listener(RedisBus([url], ["c"], "eu", anything))
    await listener.until(lambda heard: caplog.records)
    assert not any(listener.bus.servers().values())
    await listener.close()
    (line,) = recorded(caplog.records, LogEvent.BUS_DISCONNECTED, bus=listener.bus.servers().popitem()[0])
    return line["error"]


async def test_frames_go_through_a_redis_with_tls(redis, tmp_path):
    bus = RedisBus([f"rediss://127.0.0.1:{redis.tls_port}?ssl_ca_certs={tmp_path / 'cert.pem'}"], ["c"], "eu", anything)
    assert list(bus.servers()) == [f"rediss://127.0.0.1:{redis.tls_port}"]
    listener = await Listener(bus).ready()
    bus.publish(b"frame \x00\xff")
    await listener.until(lambda heard: heard == [b"frame \x00\xff"])
    await listener.close()


async def test_a_certificate_that_is_not_trusted_is_refused_and_named_as_the_reason(redis, caplog):
    said = await said_of(f"rediss://:s3cret@127.0.0.1:{redis.tls_port}", caplog)
    assert "certificate verify failed: self-signed certificate" in said
    assert "s3cret" not in caplog.text


async def test_a_certificate_of_another_authority_is_refused(redis, tmp_path, caplog):
    other = make_certificate(tmp_path, "cert2")
    said = await said_of(f"rediss://127.0.0.1:{redis.tls_port}?ssl_ca_certs={other}", caplog)
    assert "certificate verify failed" in said


@pytest.mark.parametrize("redis", ["DNS:elsewhere.example.com"], indirect=True)
async def test_a_trusted_certificate_of_another_host_is_refused(redis, tmp_path, caplog):
    said = await said_of(f"rediss://127.0.0.1:{redis.tls_port}?ssl_ca_certs={tmp_path / 'cert.pem'}", caplog)
    assert "certificate is not valid for '127.0.0.1'" in said


def test_an_unknown_option_in_an_address_is_a_reason_not_to_start():
    with pytest.raises(CannotStart, match=r"rediss://a:6379 has an unknown option: .*ssl_ca_cert"):
        RedisBus(["rediss://:s3cret@a/?ssl_ca_cert=/etc/ca.pem"], ["c"], "eu", anything)


async def test_sentinels_and_their_master_by_tls(redis, tmp_path):
    port, directory = free_port(), tmp_path / "sentinel"
    directory.mkdir()
    settings = ["port 0", f"tls-port {port}", "tls-auth-clients no", "tls-replication yes"]
    settings += [f"tls-cert-file {tmp_path / 'cert.pem'}", f"tls-key-file {tmp_path / 'key.pem'}"]
    settings += [f"tls-ca-cert-file {tmp_path / 'cert.pem'}", f"sentinel monitor main 127.0.0.1 {redis.tls_port} 1"]
    (directory / "conf").write_text("\n".join(settings))
    sentinel = subprocess.Popen([tls_server(), directory / "conf", "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        bus = RedisBus(
            [f"rediss+sentinel://127.0.0.1:{port}/main?ssl_ca_certs={tmp_path / 'cert.pem'}"], ["c"], "eu", anything
        )
        await (await Listener(bus).ready()).close()
    finally:
        sentinel.kill()
        sentinel.wait()

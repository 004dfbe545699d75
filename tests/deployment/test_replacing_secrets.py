"""The commands of docs/operate/security.md, run as they are printed: each secret is replaced, the new one counts, and
the old one does not."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.access import ADMINISTRATOR, PASSWORD, basic, done, enforce
from tests.support.needs import need
from tests.support.server import KEY, Redis, Server, free_port, wait_until
from tests.support.tls import Authority

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "security.md"
SYSTEMCTL = """#!/bin/sh
[ "$2" = concord ] || exit 1
echo "$1" > "$CONTROL.part" && mv "$CONTROL.part" "$CONTROL"
while [ -e "$CONTROL" ]; do sleep 0.05; done
"""
"""Has the test do it, and waits."""


def commands():
    """Return the commands of the page by their headings."""
    parts = re.split(r"^### (.*)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        [found[heading]] = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return found


class Host:
    """A host on which an instance runs as the page says: its settings are in /etc/concord, which is elsewhere here."""

    def __init__(self, directory, **settings):
        need(shutil.which("openssl") is not None and shutil.which("redis-cli") is not None, "openssl, redis-cli")
        self.directory, self.etc = directory, directory / "etc"
        self.etc.mkdir()
        self.file = self.etc / "concord.env"
        self.settings = {"CONCORD_CLUSTER_KEY": KEY, **settings}
        self.file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        tools = directory / "tools"
        tools.mkdir()
        concord = f'#!/bin/sh\nexec "{sys.executable}" -m registry "$@"\n'
        for name, text in (("systemctl", SYSTEMCTL), ("concord", concord)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.control = directory / "control"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CONCORD_")}
        self.environment |= {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(directory),
            "CONTROL": str(self.control),
            "CONCORD_LOGIN": str(directory / ".concord-login"),
            "PYTHONPATH": str(PAGE.parents[2]),
        }

    def attach(self, server):
        """Let the instance be restarted by the commands."""
        self.server = server
        server.environment |= self.settings
        self.environment["CONCORD_URL"] = server.url
        return server

    def run(self, heading, **replaced):
        """Run the commands below a heading of the page. Return what they print."""
        text = commands()[heading].replace("/etc/concord", str(self.etc))
        for shipped, here in replaced.items():
            assert shipped in text, shipped
            text = text.replace(shipped, here)
        command = ["bash", "-euo", "pipefail", "-c", text]
        with subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.directory,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as running:
            while running.poll() is None:
                self._serve()
                time.sleep(0.02)
            printed = running.stdout.read()
        assert running.returncode == 0, printed
        return printed

    def _serve(self):
        if not self.control.exists():
            return
        match self.control.read_text().strip():
            case "restart":
                assert self.server.stop() == 0
                for line in self.file.read_text().splitlines():
                    name, _, value = line.partition("=")
                    self.server.environment[name] = value
                self.server.start()
            case "reload":
                self.server.process.send_signal(signal.SIGHUP)
                time.sleep(1)
        self.control.unlink()


@pytest.fixture
def host(tmp_path):
    """A host with an instance that enforces access control."""
    (tmp_path / ".concord-login").write_text(f"{ADMINISTRATOR}:{PASSWORD}\n")
    host = Host(tmp_path)
    server = host.attach(Server(tmp_path / "data")).start()
    try:
        enforce(server)
        yield host
    finally:
        server.kill()


def pulls(server, headers):
    """Return whether a caller is let in: there is no such tag."""
    return server.client.request("GET", "/v2/team/app/manifests/none", headers=headers).status == 404


def token_of(server, headers):
    answer = server.client.request("GET", "/v2/token?scope=repository:team/app:pull", headers=headers)
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_every_block_of_the_page_is_tested():
    tested = Path(__file__).read_text()
    assert [heading for heading in commands() if f'host.run("{heading}"' not in tested] == []


def test_a_cluster_key_is_replaced(host):
    server, root = host.server, basic(ADMINISTRATOR, PASSWORD)
    before = token_of(server, root)
    host.run("The cluster key")
    key = host.server.environment["CONCORD_CLUSTER_KEY"]
    assert KEY not in key and "," not in key and len(key) == 64
    assert pulls(server, root) and pulls(server, token_of(server, root))
    assert not pulls(server, before), "the old key has sealed it"


def test_the_password_of_an_administrator_is_replaced(host):
    printed = host.run("The password of an administrator")
    assert "root (user " in printed
    secret = (host.directory / ".concord-login").read_text().strip().partition(":")[2]
    assert secret not in printed
    assert not pulls(host.server, basic(ADMINISTRATOR, PASSWORD)) and pulls(host.server, basic(ADMINISTRATOR, secret))


def test_the_key_of_a_robot_is_replaced(host):
    done(host.server, "robot/create", name="ci")
    done(host.server, "grant", subject="ci", repositories="team/*", rights=["pull"])
    old = basic("ci", done(host.server, "key/create", account="ci")["key"])
    printed = host.run("The key of a robot")
    assert "team/*  pull" in printed
    new = basic("ci", (host.directory / "ci.login").read_text().strip().partition(":")[2])
    assert pulls(host.server, new) and not pulls(host.server, old)


def test_an_administrator_who_has_left_is_removed(host):
    done(host.server, "account/create", name="mallory", password="a password", admin=True)
    headers = basic("mallory", "a password")
    assert pulls(host.server, headers)
    host.run("When a person leaves, or an instance is stolen")
    assert not pulls(host.server, headers)


def test_a_certificate_is_replaced(tmp_path):
    authority = Authority(tmp_path / "ca")
    first, second = authority.issue(), authority.issue()
    host = Host(tmp_path)
    for name, file in zip(("registry.crt", "registry.key"), first, strict=True):
        shutil.copy(file, host.etc / name)
    for name, file in zip(("new.crt", "new.key"), second, strict=True):
        shutil.copy(file, tmp_path / name)
    files = {"tls_certificate": str(host.etc / "registry.crt"), "tls_key": str(host.etc / "registry.key")}
    server = host.attach(Server(tmp_path / "data", context=authority.context(), **files)).start()
    try:
        printed = host.run("The certificate and the key of TLS", **{"registry.example.com:5000": server.address})
        assert int(printed.strip().partition("=")[2], 16) == second.serial != first.serial
    finally:
        server.kill()


def test_the_authority_of_the_peers_is_replaced(tmp_path):
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    host = Host(tmp_path)
    for name, file in zip(("peer.crt", "peer.key"), old.issue(), strict=True):
        shutil.copy(file, host.etc / name)
    shutil.copy(old.file, host.etc / "peers.pem")
    shutil.copy(new.file, tmp_path / "new-ca.pem")
    for name, file in zip(("new-peer.crt", "new-peer.key"), new.issue(), strict=True):
        shutil.copy(file, tmp_path / name)
    port = free_port()
    files = {f"peer_tls_{setting}": str(host.etc / name) for setting, name in (
        ("certificate", "peer.crt"), ("key", "peer.key"), ("ca", "peers.pem"),
    )}  # fmt: skip
    internal = {"listen_internal": f"127.0.0.1:{port}", "advertise": f"https://127.0.0.1:{port}"}
    server = Server(tmp_path / "data", **files, **internal)
    server.port = port  # where it is asked whether it is ready
    server.context = old.context(old.issue())
    host.attach(server).start()
    try:
        host.run("The authority of the peers")
        server.context = new.context(new.issue())
        wait_until(lambda: _answers(server))
        server.context = new.context(old.issue())
        assert not _answers(server), "the old authority counts no more"
    finally:
        server.kill()


def _answers(server):
    try:
        return server.client.get("/readyz").status == 200
    except OSError:
        return False


def test_the_password_of_redis_is_replaced(tmp_path):
    redis = Redis(tmp_path).start()
    old = "the-old-password"
    assert redis.command(*f"ACL SETUSER concord on >{old} resetkeys &concord:* -@all +subscribe +publish".split())
    address = f"127.0.0.1:{redis.port}"
    host = Host(tmp_path, CONCORD_REDIS=f"redis://concord:{old}@{address}")
    server = host.attach(Server(tmp_path / "data", clustered=True)).start()
    try:
        wait_until(lambda: all(server.status()["bus"].values()))
        host.run("The password of Redis", **{"10.1.0.2:6379": address})
        assert old not in host.file.read_text()
        wait_until(lambda: [*server.status()["bus"].values()] == [True])
        assert b"WRONGPASS" in redis.command("AUTH", "concord", old)
    finally:
        server.kill()
        redis.kill()

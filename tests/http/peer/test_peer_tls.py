"""Mutual TLS between instances: who is refused, by which side, and certificates that change."""

import contextlib
import os

import pytest

from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.support import images
from tests.support.client import Client
from tests.support.server import KEY, Server, free_port, wait_until
from tests.support.tls import Authority

IMAGE = images.image("peers", layers=2, layer_bytes=3000)
LARGE = os.urandom(3 << 20)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "peers", "peers")


class Member(Server):
    """An instance that other instances reach at an internal listener."""

    def __init__(self, data, port, peer_port, trusted, own=None, scheme="https", **settings):
        settings = own.settings("peer_tls") | settings if own is not None else settings
        super().__init__(
            data,
            site=data.name,
            peers=[f"https://127.0.0.1:{peer_port}" if scheme == "https" else f"http://127.0.0.1:{peer_port}"],
            peer_tls_ca=str(trusted.file),
            listen_internal=f"127.0.0.1:{port}",
            advertise=f"{scheme}://127.0.0.1:{port}",
            **settings,
        )
        context = trusted.context(own) if scheme == "https" else None
        self.internal = Client("127.0.0.1", port, context=context)

    def wait_ready(self):
        def ready():
            assert self.process is not None and self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                return self.internal.get("/readyz").status == 200
            return False

        wait_until(ready, 30)

    def status(self):
        return self.internal.get("/_concord/status").json()

    def root(self):
        return self.internal.get("/_concord/digest").json()["root"]


@contextlib.contextmanager
def two_members(tmp_path, first, second):
    """Two instances that know each other's address; `first` and `second` are the settings in which they differ."""
    ports = [free_port(), free_port()]
    members = [
        Member(tmp_path / "eu", ports[0], ports[1], **first),
        Member(tmp_path / "us", ports[1], ports[0], **second),
    ]
    try:
        for member in members:
            member.start(wait=False)
        yield members
    finally:
        for member in members:
            member.kill()


def knows_another(member):
    with contextlib.suppress(OSError):
        return any(one["live"] and one["reachable"] for one in member.status()["members"])
    return False


def refusals(member):
    """Return why the other address gives this member no handshake."""
    return [line["error"] for line in member.logged(LogEvent.HANDSHAKE_FAILED)]


def test_instances_that_trust_each_other_replicate_and_change_their_certificates(tmp_path, authority):
    own = [authority.issue(), authority.issue()]
    settings = [{"trusted": authority, "own": one} for one in own]
    with two_members(tmp_path, *settings) as (eu, us):
        for member in (eu, us):
            member.wait_ready()
        wait_until(lambda: knows_another(eu) and knows_another(us))
        eu.client.push("app", "v1", IMAGE)
        large = eu.client.push_blob("app", LARGE)
        wait_until(lambda: eu.root() == us.root())
        assert us.client.pull("app", "v1") == IMAGE.body
        assert us.client.get(f"/v2/app/blobs/{large}").body == LARGE
        # A second authority that both sides trust, new certificates by it, and the first one is removed.
        other = Authority(tmp_path / "new", "new")
        first = authority.file.read_bytes()
        authority.file.write_bytes(first + other.file.read_bytes())
        wait_until(lambda: all(len(one.logged(LogEvent.TLS_RELOADED)) == 1 for one in (eu, us)))
        for files in own:
            files.replace(other.issue())
        wait_until(lambda: all(len(one.logged(LogEvent.TLS_RELOADED)) == 2 for one in (eu, us)))
        authority.file.write_bytes(other.file.read_bytes())
        wait_until(lambda: all(len(one.logged(LogEvent.TLS_RELOADED)) == 3 for one in (eu, us)))
        for member, files in zip((eu, us), own, strict=True):
            member.internal.context = other.context(files)
        us.client.push("app", "v2", IMAGE)
        large = us.client.push_blob("app", LARGE[1:])
        wait_until(lambda: eu.root() == us.root())
        assert eu.client.get(f"/v2/app/blobs/{large}").body == LARGE[1:]
        assert not eu.logged(LogEvent.TLS_RELOAD_FAILED)


def test_a_request_without_a_certificate_is_refused_and_a_probe_is_answered(tmp_path, authority):
    settings = {"trusted": authority, "own": authority.issue()}
    with two_members(tmp_path, settings, settings | {"own": authority.issue()}) as (eu, us):
        us.kill()
        eu.wait_ready()
        anonymous = Client(eu.internal.host, eu.internal.port, context=authority.context())
        for path in ("/readyz", "/metrics", "/_concord/status"):
            assert anonymous.get(path).status == 200
        for path in ("/_concord/peer/session", "/_concord/peer/locate", "/_concord/peer/nonsense"):
            refused = anonymous.request("POST", path, b"")
            assert (refused.status, refused.headers["Concord-Refused"]) == (403, "certificate")
            assert eu.internal.request("POST", path, b"").headers["Concord-Refused"] != "certificate"
        address = f"https://127.0.0.1:{eu.internal.port}"
        done = concord("gc", "--ca", authority.file, address, CONCORD_CLUSTER_KEY=KEY)
        assert done.returncode == 0, "commands have no certificate, and are answered as clients without the key"
        line = 'concord_peer_requests_refused_total{reason="no certificate"} 4.0'
        assert line in anonymous.get("/metrics").body.decode().splitlines()
        assert eu.client.request("POST", "/_concord/peer/session", b"").status == 404


def test_an_instance_without_a_certificate_is_refused_and_says_why(tmp_path, authority):
    """It has the cluster key, and trusts the right authority."""
    certified = {"trusted": authority, "own": authority.issue()}
    with two_members(tmp_path, certified, {"trusted": authority, "scheme": "http"}) as (eu, us):
        us.environment["CONCORD_PEER"] = f"https://127.0.0.1:{eu.internal.port}"
        us.kill()
        us.start(wait=False)
        wait_until(lambda: any("expects a certificate (--peer-tls-certificate)" in why for why in refusals(us)))
        assert not knows_another(us) and not knows_another(eu)


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_certificate_with_a_wrong_name_or_authority_is_refused(tmp_path, authority, wrong):
    """By the side that connects to it; a certificate of a wrong authority by the side that accepts it, too."""
    strangers = Authority(tmp_path / "strangers", "peers")  # another authority of the same name
    bad = authority.issue("elsewhere.example.com") if wrong == "name" else strangers.issue()
    good = {"trusted": authority, "own": authority.issue()}
    with two_members(tmp_path, good, {"trusted": authority, "own": bad}) as (eu, us):
        reason = "is not valid for '127.0.0.1'" if wrong == "name" else "certificate verify failed"
        wait_until(lambda: any(reason in why for why in refusals(eu)))
        if wrong == "authority":
            wait_until(lambda: refusals(us))
            assert not knows_another(eu) and not knows_another(us)
        assert not eu.logged(LogEvent.HANDSHAKE_COMPLETED)
        assert KEY not in eu.log.read_text()


def test_with_an_authority_alone_instances_reach_each_other_at_the_listener_of_clients(tmp_path, authority):
    ports = [free_port(), free_port()]
    addresses = [f"https://127.0.0.1:{port}" for port in ports]
    members = [
        Server(
            tmp_path / str(number),
            str(number),
            peers=addresses,
            port=port,
            context=authority.context(),
            peer_tls_ca=str(authority.file),
            **authority.issue().settings(),
        )
        for number, port in enumerate(ports)
    ]
    try:
        for member in members:
            member.start(wait=False)
        for member in members:
            member.wait_ready()
        wait_until(lambda: all(knows_another(member) for member in members))
        members[0].client.push("app", "v1", IMAGE)
        wait_until(lambda: members[0].root() == members[1].root())
        assert members[1].client.pull("app", "v1") == IMAGE.body
    finally:
        for member in members:
            member.kill()

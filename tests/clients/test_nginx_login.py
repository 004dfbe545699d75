"""Clients that log in, push and pull through Debian's nginx with TLS, configured as docs/nginx.conf says, in front of
instances that enforce access control."""

import re
import shutil

import pytest

from registry.cli.client import act
from tests.clients.test_tls import copy, pull
from tests.support.access import ADMINISTRATOR, PASSWORD, done, enforce
from tests.support.client import Client
from tests.support.engines import Failed, run
from tests.support.nginx import with_tls
from tests.support.server import KEY, running_cluster, running_server, wait_until
from tests.support.tls import Authority

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory, authority):
    """The directory with the authority, as clients want it."""
    directory = tmp_path_factory.mktemp("certs.d")
    shutil.copy(authority.file, directory / "ca.crt")
    return directory


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two instances of one site that enforce access control."""
    settings = {"trusted_proxies": "127.0.0.1", "workers": "2"}
    with running_cluster(tmp_path_factory.mktemp("site"), ["eu", "eu"], **settings) as cluster:
        # To instances that trust a proxy on this host, a client on this host may be one behind it.
        root = {"name": ADMINISTRATOR, "password": PASSWORD, "admin": True}
        act(cluster[0].url, "/_concord/access/account/create", root, [KEY])
        done(cluster[0], "enforce")
        yield cluster


@pytest.fixture(scope="module")
def robot(site):
    """The key of a robot that may push to team/*."""
    done(site[0], "robot/create", name="ci")
    done(site[0], "grant", subject="ci", repositories="team/*", rights=["pull", "push"])
    key = done(site[0], "key/create", account="ci")["key"]
    wait_until(lambda: done(site[0], "confirmations")["unconfirmed"] == [])
    return key


def front(directory, servers, authority):
    proxy = with_tls(directory, [server.address for server in servers], authority.issue())
    proxy.client = Client(proxy.client.host, proxy.client.port, context=authority.context())
    return proxy


@pytest.fixture(scope="module")
def nginx(site, authority, tmp_path_factory):
    with front(tmp_path_factory.mktemp("nginx"), site.servers, authority) as proxy:
        yield proxy.wait_listening()


def realm(nginx, **headers):
    answer = nginx.client.request("GET", "/v2/", headers=headers)
    assert answer.status == 401
    return re.search(r'realm="([^"]*)"', answer.headers["WWW-Authenticate"])[1]


def test_the_realm_is_the_address_of_nginx(nginx):
    for headers in ({}, {"X-Forwarded-Proto": "http"}):
        for _ in range(4):
            assert realm(nginx, **headers) == f"https://{nginx.address}/v2/token"
    assert realm(nginx, Host="registry.example.com") == "https://registry.example.com/v2/token"


def test_without_trusted_proxies_the_realm_shows_what_is_wrong(tmp_path, authority):
    with running_server(tmp_path / "data") as server:
        enforce(server)
        with front(tmp_path / "nginx", [server], authority) as proxy:
            assert realm(proxy.wait_listening()) == f"http://{proxy.address}/v2/token", "as the page says"


def test_a_request_without_tls_is_not_answered_by_an_instance(nginx):
    plain = Client(nginx.client.host, nginx.client.port)
    assert plain.get("/v2/").status == 400


@pytest.mark.parametrize("name", ["skopeo", "podman", "buildah"])
def test_a_client_logs_in_pushes_and_pulls(engines, name, nginx, robot, certificates, tmp_path, monkeypatch):
    engine = engines(name)
    (tmp_path / "auth.json").write_text("{}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    reference = f"docker://{nginx.address}/team/{name}:v1"
    trust = ["--cert-dir", str(certificates)]
    command = ["skopeo"] if name == "skopeo" else engine._command
    with pytest.raises(Failed):
        run([*command, "login", *trust, "--username", "ci", "--password", "concord_wrong", nginx.address])
    image = engine.build(f"nginx-{name}", padding=3_000_000)
    built = engine.image_id(image)
    with pytest.raises(Failed):
        copy(engine, image, reference, certificates)
    run([*command, "login", *trust, "--username", "ci", "--password", robot, nginx.address])
    copy(engine, image, reference, certificates)
    with pytest.raises(Failed, match=r"(?i)denied|lacks the right|unauthorized|forbidden"):
        copy(engine, image, f"docker://{nginx.address}/other/{name}:v1", certificates)
    assert pull(engine, reference, certificates) == built
    engine.forget(image)

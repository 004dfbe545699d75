"""Administrative acts: gc, forget, leave and scrub are not for everybody, and each is a line in the log."""

import json
import os
import shutil

import pytest

from registry.cluster.rpc.sessions import hash_of, sign_request
from registry.http.admin.access import ROUTES
from registry.http.app import ADMIN_ACTIONS
from registry.telemetry.events import LogEvent
from registry.telemetry.log_limit import AT_ONCE
from tests.cli.test_cli import concord
from tests.cluster.test_hostile_peers import Peer
from tests.support import images
from tests.support.client import sha256
from tests.support.needs import need
from tests.support.network import Network
from tests.support.server import KEY, Server, running_server

pytestmark = pytest.mark.slow

ACTS = ["gc", "forget", "leave", "scrub", *(f"access/{path}" for path in ROUTES)]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An instance without a cluster, asked from its own host."""
    with running_server(tmp_path_factory.mktemp("administration") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def network():
    need(os.geteuid() == 0, "network namespaces need root")
    need(shutil.which("ip") is not None, "iproute2 is missing")
    with Network(2) as made:
        yield made


@pytest.fixture(scope="module")
def remote(network, tmp_path_factory):
    """An instance on another host, whose listener serves everything."""
    data = tmp_path_factory.mktemp("remote") / "data"
    running = Server(data, clustered=True, host=network.addresses[0], port=5000, namespace=network.names[0])
    yield running.start()
    running.kill()


@pytest.fixture(scope="module")
def internal(network, tmp_path_factory):
    """An instance on another host with an internal listener. Its `internal` is a client of that."""
    address, data = network.addresses[1], tmp_path_factory.mktemp("internal") / "data"
    running = Server(
        data, clustered=True, host=address, port=5000, namespace=network.names[1],
        listen_internal=f"{address}:5001", advertise="http://node-1.example:5001",
    )  # fmt: skip
    running.start(wait=False)
    running.port = 5001
    running.wait_ready()
    yield running
    running.kill()


def post(server, act, headers=JSON, body=b"{}"):
    return server.client.request("POST", f"/_concord/{act}", body, headers)


def reason_of(answer):
    return answer.json()["errors"][0]["detail"]["reason"]


def acts(server):
    """What the log says of acts that were carried out."""
    return server.logged(LogEvent.ADMIN_ACTION_PERFORMED)


def pushed_without_tag(server, name):
    """The digest of a manifest that `gc` would delete if it were asked to."""
    image = images.image(name, layer_bytes=100)
    server.client.push("app", image.digest, image)
    return image.digest


BROWSERS = {
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "same-site": {"Sec-Fetch-Site": "same-site"},
    "origin": {"Origin": "http://evil.example"},
    "null-origin": {"Origin": "null"},
    "rebound": {"Host": "rebound.evil.example", "Origin": "http://rebound.evil.example"},
    "rebound-without-origin": {"Host": "rebound.evil.example"},
    "text": {"Content-Type": "text/plain;charset=UTF-8"},
    "form": {"Content-Type": "application/x-www-form-urlencoded"},
    "files": {"Content-Type": "multipart/form-data; boundary=x"},
}


@pytest.mark.parametrize("browser", BROWSERS.values(), ids=BROWSERS)
@pytest.mark.parametrize("act", ACTS)
def test_acts_that_a_web_page_has_a_browser_ask_for_are_refused(server, act, browser):
    digest = pushed_without_tag(server, (act, *browser.items()))
    answer = post(server, act, JSON | browser, b'{"untagged_older_than_s": 0}' if act == "gc" else b"{}")
    assert answer.status == (415 if "Content-Type" in browser else 403), answer
    assert answer.code == ("UNSUPPORTED" if "Content-Type" in browser else "DENIED")
    assert server.client.get(f"/v2/app/manifests/{digest}").status == 200
    assert not server.client.get("/_concord/leave").json()["leaving"]
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "page", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_an_upload_that_a_web_page_has_a_browser_send_is_refused(server, page):
    """A POST is all that a page can have a browser send without a preflight, and with a digest it is a whole upload."""
    body = repr(page).encode()
    answer = server.client.request("POST", f"/v2/app/blobs/uploads/?digest={sha256(body)}", body, page)
    assert answer.status == 403 and answer.code == "DENIED"
    assert server.client.head(f"/v2/app/blobs/{sha256(body)}").status == 404


def test_a_preflight_is_not_answered(server):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = server.client.request("OPTIONS", "/_concord/gc", headers=asked)
    assert answer.status == 404 and "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("headers", [{}, JSON, {"Host": "localhost"}, {"Host": "[::1]:80"}])
def test_clients_on_the_same_host_are_answered(server, headers):
    assert post(server, "gc", headers).status == 200


PROXIES = {
    "x-forwarded-for": {"X-Forwarded-For": "127.0.0.1"},
    "x-real-ip": {"X-Real-IP": "127.0.0.1"},
    "forwarded": {"Forwarded": "for=127.0.0.1"},
    "via": {"Via": "1.1 proxy"},
    "x-forwarded-proto": {"X-Forwarded-Proto": "https"},
    "x-forwarded-port": {"X-Forwarded-Port": "443"},
    "x-forwarded-server": {"X-Forwarded-Server": "proxy"},
    "x-forwarded-ssl": {"X-Forwarded-Ssl": "on"},
    "x-forwarded-anything": {"X-Forwarded-Client-Cert": ""},
    "cf-connecting-ip": {"CF-Connecting-IP": "127.0.0.1"},
    "true-client-ip": {"True-Client-IP": "127.0.0.1"},
    "x-client-ip": {"X-Client-IP": "127.0.0.1"},
    "x-envoy-external-address": {"X-Envoy-External-Address": "127.0.0.1"},
    "host-of-the-registry": {"Host": "registry.example.com"},
    "address-of-the-host": {"Host": "10.1.0.5"},
}


@pytest.mark.parametrize("passed_on", PROXIES.values(), ids=PROXIES)
def test_what_a_proxy_on_the_same_host_passes_on_is_not_local(server, passed_on):
    assert post(server, "gc", JSON | passed_on).status == 403


def test_a_trusted_proxy_is_no_local_client(tmp_path):
    with running_server(tmp_path / "data", trusted_proxies="127.0.0.0/8") as server:
        assert post(server, "gc").status == 403


@pytest.mark.parametrize("clustered", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_acts_unsigned_local_client_is_refused_where_a_clustered_instance_listens_elsewhere_too(
    tmp_path, host, clustered
):
    """A relay on the host that adds no header cannot be told from a local client, and `Host` is the stranger's."""
    advertise = {"advertise": "http://node-1.example:5000"} if clustered else {}
    with running_server(tmp_path / "data", host=host, clustered=clustered, **advertise) as running:
        local = f"http://127.0.0.1:{running.port}"
        refused = clustered and host == "0.0.0.0"
        for act in ACTS:
            for claimed in ({"Host": "localhost"}, {"Host": "127.0.0.1"}):
                answer = post(running, act, JSON | claimed)
                assert (answer.status == 403) is refused, answer
                assert not refused or reason_of(answer) == "signature-required"
        assert concord("gc", local, CONCORD_CLUSTER_KEY=KEY).returncode == 0


def test_an_act_is_one_line_with_who_asked_and_what_came_of_it(server):
    digest = pushed_without_tag(server, "logged")
    before = acts(server)
    assert post(server, "gc", body=b'{"untagged_older_than_s": 0}').status == 200
    assert server.client.get(f"/v2/app/manifests/{digest}").status == 404
    (line,) = acts(server)[len(before) :]
    assert (line["act"], line["client"], line["proof"]) == ("gc", "127.0.0.1", "loopback")
    assert line.keys() >= {"untagged", "removed", "request"}


def test_refusals_are_logged_with_who_asked_and_a_flood_of_them_is_a_few_lines(tmp_path):
    with running_server(tmp_path / "data") as server:
        for _ in range(AT_ONCE * 3):
            assert post(server, "leave", JSON | {"Origin": "http://evil.example"}).status == 403
        found = server.logged(LogEvent.ADMIN_ACTION_REJECTED)
        assert AT_ONCE <= len(found) <= AT_ONCE * 2
        assert (found[0]["act"], found[0]["client"], found[0]["status"]) == ("leave", "127.0.0.1", 403)


def test_bad_questions_change_nothing(server):
    assert post(server, "gc", body=b'{"unheard_of": 1}').status == 400
    assert post(server, "gc", body=b" " * 5000).status == 413
    assert post(server, "forget", body=b'{"instance": ""}').status == 404


# On other hosts


@pytest.mark.parametrize("act", ACTS)
def test_clients_on_other_hosts_are_refused_without_the_key(remote, act):
    answer = post(remote, act)
    assert answer.status == 403 and reason_of(answer) == "signature-required"
    for claimed in ({"Host": "localhost"}, {"Host": "localhost", "X-Forwarded-For": "127.0.0.1"}):
        assert post(remote, act, JSON | claimed).status == 403
    assert not remote.client.get("/_concord/leave").json()["leaving"]


def test_everybody_may_still_look(remote):
    for path in ("/healthz", "/readyz", "/metrics", "/_concord/status", "/_concord/digest", "/_concord/scrub"):
        assert remote.client.get(path).status == 200
        assert remote.client.get(path, Host="some.name.example").status == 200


def test_the_command_line_signs_with_the_key_from_the_environment(remote):
    before = acts(remote)
    done = concord("gc", "--json", remote.url, CONCORD_CLUSTER_KEY=f"{KEY},the-next-one-of-a-rotation")
    assert done.returncode == 0 and json.loads(done.stdout)["dry_run"] is False, done
    (line,) = acts(remote)[len(before) :]
    assert line["proof"] == "cluster key" and "@" in line["by"] and KEY not in remote.log.read_text()
    assert concord("scrub", remote.url, CONCORD_CLUSTER_KEY=KEY).returncode == 0
    refused = concord("forget", remote.url, "abc", CONCORD_CLUSTER_KEY=KEY)
    assert refused.returncode == 2 and "answered 404" in refused.stderr
    refused = concord("leave", remote.url, CONCORD_CLUSTER_KEY=KEY)
    assert refused.returncode == 2 and "answered 409" in refused.stderr


@pytest.mark.parametrize("written", [f'cluster_key = "{KEY}"', f'cluster_key = ["{KEY}", "another-one-of-16"]'])
def test_the_command_line_signs_with_the_key_from_a_file(remote, tmp_path, written):
    file = tmp_path / "concord.toml"
    file.write_text(f'listen = "0.0.0.0:5000"\n{written}\n')
    assert concord("gc", "--config", file, remote.url).returncode == 0
    refused = concord("gc", "--config", tmp_path / "none.toml", remote.url)
    assert refused.returncode == 2 and "cannot be read" in refused.stderr


def test_the_command_line_without_the_key_or_with_another_one_is_refused(remote):
    refused = concord("gc", remote.url)
    assert refused.returncode == 2 and "answered 403" in refused.stderr
    refused = concord("gc", remote.url, CONCORD_CLUSTER_KEY="another-key-than-theirs")
    assert refused.returncode == 2 and "does not accept the cluster key" in refused.stderr


def test_a_key_that_the_instance_does_not_know_does_not_keep_local_clients_out(server):
    assert concord("gc", server.url, CONCORD_CLUSTER_KEY=KEY).returncode == 0


class Signer(Peer):
    """Signs administrative requests."""

    def headers(self, path, body=b"{}", sequence=1):
        session = self.open()
        mac = sign_request(session, "POST", path, sequence, "root@ops", hash_of(body))
        proof = {"Session": session.token, "Sequence": str(sequence), "Parameters": "root@ops", "Body": hash_of(body)}
        return JSON | {f"Concord-{name}": value for name, value in (proof | {"MAC": mac}).items()}


def test_a_signed_request_is_taken_once_and_as_it_was_signed(remote):
    headers = Signer(remote).headers("/_concord/gc")
    assert post(remote, "scrub", headers).status == 403
    assert post(remote, "gc", headers, b'{"untagged_older_than_s": 0}').status == 403
    assert post(remote, "gc", headers | {"Concord-Parameters": "somebody@else"}).status == 403
    headers = Signer(remote).headers("/_concord/gc")
    assert post(remote, "gc", headers | {"Host": "any.name.example"}).status == 200
    assert post(remote, "gc", headers).status == 403, "replayed"
    assert acts(remote)[-1]["by"] == "root@ops"


@pytest.mark.parametrize("session", ["", "x", "AAAA", "é"])
def test_a_malformed_signature_is_refused(remote, server, session):
    for one in (remote, server):
        answer = post(one, "gc", {**JSON, "Concord-Session": session.encode().decode("latin-1")})
        assert answer.status == 403 and answer.code == "DENIED"


def test_a_signed_request_of_a_web_page_is_refused_all_the_same(remote):
    headers = Signer(remote).headers("/_concord/gc")
    assert post(remote, "gc", headers | {"Origin": "http://evil.example"}).status == 403
    assert post(remote, "gc", headers | {"Sec-Fetch-Site": "cross-site"}).status == 403


def test_an_answer_to_a_signed_request_is_signed(remote):
    answer = post(remote, "gc", Signer(remote).headers("/_concord/gc"))
    assert answer.status == 200 and len(answer.headers["Concord-MAC"]) == 64


def test_the_internal_listener_answers_other_hosts_under_names_that_are_its_own(internal):
    assert internal.port == 5001
    assert post(internal, "gc").status == 200
    assert post(internal, "gc", JSON | {"Host": "node-1.example:5001"}).status == 200
    assert post(internal, "gc", JSON | {"Host": "rebound.evil.example"}).status == 403
    assert post(internal, "gc", JSON | {"Origin": "http://evil.example"}).status == 403
    assert acts(internal)[0]["proof"] == "internal listener"


def test_with_an_internal_listener_the_public_one_has_no_administration(internal):
    public = Server(internal.data, host=internal.host, port=5000)
    for path in (f"/_concord/{act}" for act in ACTS):
        for headers in (JSON, Signer(internal).headers(path)):
            assert public.client.request("POST", path, b"{}", headers).status == 404


def test_no_act_is_without_these_tests():
    assert sorted(path for _, path in ADMIN_ACTIONS) == sorted(f"/_concord/{act}" for act in ACTS)

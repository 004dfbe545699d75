"""The audit log of a running instance: who did what, and no secret."""

import msgspec
import pytest

from tests.cli.test_cli import concord
from tests.support import images
from tests.support.access import ADMINISTRATOR, PASSWORD, basic, done, enforce
from tests.support.server import running_server, wait_until

IMAGE = images.image("audit", layer_bytes=1000)
MANIFEST = {"Content-Type": IMAGE.media_type}


def entries(server):
    files = sorted((server.data / "audit").glob("*.jsonl"))
    return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]


def found(server, **wanted):
    return [one for one in entries(server) if all(one.get(name) == value for name, value in wanted.items())]


@pytest.fixture(params=["1", "3"], ids=["one process", "with workers"])
def server(request, tmp_path):
    with running_server(tmp_path / "data", workers=request.param) as server:
        server.client.push("team/app", "v1", IMAGE)
        assert not (server.data / "audit").exists(), "no account is known yet"
        enforce(server)
        yield server


def test_writes_logins_refusals_and_administration_are_recorded_and_no_secret_is(server):
    client = server.client
    done(server, "robot/create", name="ci")
    done(server, "grant", subject="ci", repositories="team/*", rights=["pull"])
    key = done(server, "key/create", account="ci")["key"]
    root, ci = basic(ADMINISTRATOR, PASSWORD), basic("ci", key)
    token = client.request("GET", "/v2/token?service=concord&scope=repository:team/app:pull", None, ci).json()["token"]
    assert client.request("GET", "/v2/team/app/manifests/v1", None, {"Authorization": f"Bearer {token}"}).status == 200
    assert client.request("PUT", "/v2/team/app/manifests/v2", IMAGE.body, MANIFEST | root).status == 201
    assert client.request("PUT", "/v2/team/app/manifests/v3", IMAGE.body, MANIFEST | ci).status == 403
    assert client.request("GET", "/v2/team/app/manifests/v1", None, basic("ci", "a wrong secret")).status == 401
    assert client.request("POST", "/v2/team/app/blobs/uploads/?digest=sha256:secret", b"", root).status >= 400
    wait_until(lambda: found(server, event="refused", status=401, path="/v2/team/app/manifests/v1"))
    wait_until(lambda: found(server, event="login", name="ci"))
    (put,) = wait_until(lambda: found(server, event="request", path="/v2/team/app/manifests/v2"))
    assert (put["name"], put["method"], put["status"]) == (ADMINISTRATOR, "PUT", 201)
    (refused,) = wait_until(lambda: found(server, event="refused", path="/v2/team/app/manifests/v3"))
    assert (refused["name"], refused["status"]) == ("ci", 403) or refused["status"] == 403
    (granted,) = found(server, event="administration", act="grant")
    assert (granted["by"], granted["subject"], granted["rights"]) == (ADMINISTRATOR, "ci", "pull")
    assert not found(server, method="GET", status=200, event="request"), "reads are recorded on request alone"
    files = [file for file in server.data.rglob("*") if file.is_file()]
    written = b"".join(file.read_bytes() for file in [*files, server.log])
    for secret in (PASSWORD, key, token, "a wrong secret"):
        assert secret.encode() not in written


def test_a_log_that_was_changed_is_found(server):
    wait_until(lambda: found(server, act="enforce"))
    server.client.request("PUT", "/v2/team/app/manifests/v2", IMAGE.body, MANIFEST | basic(ADMINISTRATOR, PASSWORD))
    wait_until(lambda: found(server, path="/v2/team/app/manifests/v2"))
    server.kill()
    right = concord("audit", "verify", "--data", server.data)
    assert right.returncode == 0, right
    heads = [word for head in right.stdout.split() for word in ("--head", head)]
    assert concord("audit", "verify", "--data", server.data, *heads).returncode == 0
    file = sorted((server.data / "audit").glob("000-*"))[0]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0].replace(b"create account", b"remove account") + b"".join(lines[1:]))
    altered = concord("audit", "verify", "--data", server.data)
    assert altered.returncode == 1 and "altered" in altered.stdout
    file.write_bytes(b"".join(lines[:-1]))
    assert concord("audit", "verify", "--data", server.data).returncode == 0, "an end that is cut off shows nothing"
    cut = concord("audit", "verify", "--data", server.data, *heads)
    assert cut.returncode == 1 and "ends before line" in cut.stdout


def test_reads_are_recorded_where_the_operator_wants_that(tmp_path):
    with running_server(tmp_path / "data", workers="2", audit="all") as server:
        server.client.push("team/app", "v1", IMAGE)
        enforce(server)
        root = basic(ADMINISTRATOR, PASSWORD)
        for _ in range(3):
            assert server.client.request("GET", "/v2/team/app/manifests/v1", None, root).status == 200
        wait_until(lambda: len(found(server, method="GET", path="/v2/team/app/manifests/v1", name=ADMINISTRATOR)) == 3)

"""An instance with the settings of k8s/overlays/secured, and the guide's commands at it."""

import contextlib
import re
from pathlib import Path

import pytest

from tests.cli.test_cli import concord
from tests.support.client import Client
from tests.support.kustomize import build
from tests.support.server import KEY, Server, free_port, wait_until
from tests.support.tls import Authority

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "operate" / "kubernetes.md").read_text()
PASSWORD = "the password of the secret"


@pytest.fixture
def pod(tmp_path):
    """An instance as concord-0, with the files of its secrets. Yields it and the environment of commands there."""
    built = [one for one in build(ROOT / "k8s/overlays/secured") if one["kind"] == "StatefulSet"]
    [instances] = [one for one in built if one["metadata"]["name"] == "concord"]
    [container] = instances["spec"]["template"]["spec"]["containers"]
    shipped = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    authority, port = Authority(tmp_path / "ca"), free_port()
    for directory, names in (
        ("clients", ["concord.concord.svc"]),
        ("peers", ["127.0.0.1", "*.concord-instances.test"]),
    ):
        place = tmp_path / "tls" / directory
        place.mkdir(parents=True)
        for name, file in zip(("tls.crt", "tls.key"), authority.issue(*names), strict=True):
            (place / name).write_bytes(file.read_bytes())
        (place / "ca.crt").write_bytes(authority.file.read_bytes())
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "password").write_text(PASSWORD)
    here = {
        name: re.sub(r"^/(?=tls/|admin/)", f"{tmp_path}/", value).replace(":5001", f":{port}")
        for name, value in shipped.items()
    }
    settings = {
        name.removeprefix("CONCORD_").lower(): here[name]
        for name in here
        if "TLS" in name or name in ("CONCORD_ADMIN_PASSWORD_FILE", "CONCORD_INSECURE")
    }
    settings |= {"listen_internal": f"127.0.0.1:{port}", "advertise": f"https://127.0.0.1:{port}"}
    server = Server(tmp_path / "data", clustered=True, context=authority.context(), **settings).start(wait=False)
    internal = Client("127.0.0.1", port, context=authority.context())

    def is_ready():
        with contextlib.suppress(OSError):
            return internal.get("/readyz").status == 200

    try:
        wait_until(is_ready)
        yield internal, {name: here[name] for name in ("CONCORD_URL", "CONCORD_CA")} | {"CONCORD_CLUSTER_KEY": KEY}
    finally:
        server.kill()


def test_probes_are_answered_and_the_commands_of_the_guide_work(pod, tmp_path):
    internal, environment = pod
    assert internal.get("/healthz").status == 200
    assert concord("status", **environment).returncode == 0
    (tmp_path / "login").write_text(f"admin:{PASSWORD}\n")
    commands = re.findall(r"exec concord-0 -- concord (.*) --login /tmp/login$", GUIDE, flags=re.MULTILINE)
    assert commands == ["login check", "access enforce"]
    for command in commands:
        ran = concord(*command.split(), "--login", tmp_path / "login", **environment)
        assert ran.returncode == 0, ran
    assert internal.get("/healthz").status == internal.get("/readyz").status == 200, "probes have no credentials"
    assert internal.get("/_concord/status").status == 401
    assert concord("status", "--login", tmp_path / "login", **environment).returncode == 0

"""Real clients over TLS: skopeo, podman and buildah, and an instance of two processes."""

import json
import shutil

import pytest

from tests.support.engines import run
from tests.support.server import running_server
from tests.support.tls import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "tls")


@pytest.fixture
def certificates(tmp_path, authority):
    """The directory with the authority that a client trusts, as these clients want it."""
    directory = tmp_path / "certs.d"
    directory.mkdir()
    shutil.copy(authority.file, directory / "ca.crt")
    return directory


@pytest.mark.parametrize("name", ["skopeo", "podman", "buildah"])
def test_clients_push_and_pull_with_a_certificate_and_without_one(engines, name, tmp_path, authority, certificates):
    clients = Authority(tmp_path / "clients", "clients")
    settings = authority.issue().settings() | {"workers": "2", "tls_client_ca": str(clients.file)}
    engine = engines(name)
    image = engine.build("secure", padding=5_000_000)
    built = engine.image_id(image)
    with running_server(tmp_path / "data", context=authority.context(), **settings) as server:
        for tag in ("anonymous", "identified"):
            if tag == "identified":
                own = clients.issue(subject=name)
                shutil.copy(own.certificate, certificates / "client.cert")
                shutil.copy(own.key, certificates / "client.key")
            reference = f"docker://{server.address}/app:{tag}"
            copy(engine, image, reference, certificates)
            raw = run(["skopeo", "inspect", "--raw", "--cert-dir", str(certificates), reference])
            assert json.loads(raw)["config"]["digest"] == f"sha256:{built}"
            assert pull(engine, reference, certificates) == built
        assert sorted(server.client.tags("app")) == ["anonymous", "identified"]
    engine.forget(image)


def copy(engine, image, reference, certificates):
    if engine.name == "skopeo":
        run(["skopeo", "copy", "--quiet", "--dest-cert-dir", str(certificates), image, reference])
    else:
        engine._run("push", "--cert-dir", str(certificates), image, reference)


def pull(engine, reference, certificates):
    if engine.name != "skopeo":
        return engine._run("pull", "--quiet", "--cert-dir", str(certificates), reference)
    target = engine.directory / "pulled"
    shutil.rmtree(target, ignore_errors=True)
    run(["skopeo", "copy", "--quiet", "--src-cert-dir", str(certificates), reference, f"dir:{target}"])
    return engine.image_id(f"dir:{target}")

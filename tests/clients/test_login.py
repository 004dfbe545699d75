"""Real clients at an instance that enforces access control: they log in, push, pull, mount and delete, and are refused
in a way that they understand."""

import json
from uuid import uuid4

import pytest

from tests.http.access.conftest import guarded
from tests.support.engines import Failed


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    with guarded(tmp_path_factory.mktemp("clients")) as found:
        found.facts.grant(found.facts.account("alice", "password of alice"), "team/*", "pull", "push", "delete")
        found.facts.grant(found.facts.account("reader", "password of reader"), "team/*", "pull")
        found.facts.grant("anonymous", "public/*", "pull")
        found.facts.grant(found.facts.account("publisher", "password of publisher"), "public/*", "push", "pull")
        yield found


@pytest.fixture(autouse=True)
def own_logins(tmp_path, monkeypatch):
    log_out(tmp_path, monkeypatch)
    return tmp_path


def log_out(directory, monkeypatch):
    """Have clients keep their logins in a directory, which has none yet."""
    directory.mkdir(exist_ok=True)
    (directory / "auth.json").write_text("{}")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(directory / "auth.json"))
    monkeypatch.setenv("DOCKER_CONFIG", str(directory / "docker"))


def log_in(engine, at, name):
    engine.login(at.server.address, name, f"password of {name}")


@pytest.mark.slow
def test_a_client_logs_in_pushes_and_pulls(engine, at):
    reference = f"{at.server.address}/team/{engine.name}-{uuid4().hex[:8]}:v1"
    image = engine.build("one")
    with pytest.raises(Failed, match=r"(?i)unauthorized|denied|authentication|no basic auth"):
        engine.push(image, reference)
    with pytest.raises(Failed):
        engine.login(at.server.address, "alice", "a wrong password")
    log_in(engine, at, "alice")
    engine.push(image, reference)
    assert engine.pull(reference)


@pytest.mark.slow
def test_a_client_is_refused_what_it_has_no_right_to(engine, at):
    log_in(engine, at, "reader")
    image = engine.build("two")
    with pytest.raises(Failed, match=r"(?i)denied|lacks the right|unauthorized|forbidden"):
        engine.push(image, f"{at.server.address}/team/{engine.name}-refused:v1")
    with pytest.raises(Failed, match=r"(?i)denied|lacks the right|unauthorized|forbidden"):
        engine.pull(f"{at.server.address}/secret/app:v1")


@pytest.mark.slow
def test_a_client_pulls_what_is_public_without_a_login(engine, at, tmp_path, monkeypatch):
    reference = f"{at.server.address}/public/{engine.name}-{uuid4().hex[:8]}:v1"
    image = engine.build("three")
    log_in(engine, at, "publisher")
    engine.push(image, reference)
    log_out(tmp_path / "nothing", monkeypatch)
    assert engine.pull(reference)


@pytest.mark.slow
def test_docker_keeps_a_refresh_token_in_place_of_the_password(docker, at, own_logins):
    log_in(docker, at, "alice")
    kept = json.loads((own_logins / "docker" / "config.json").read_text())["auths"][at.server.address]
    assert kept.get("identitytoken", "").startswith("1.") and "password of alice" not in str(kept)
    reference = f"{at.server.address}/team/refresh-{uuid4().hex[:8]}:v1"
    docker.push(docker.build("four"), reference)


@pytest.mark.slow
def test_skopeo_mounts_and_deletes(skopeo, at):
    log_in(skopeo, at, "alice")
    image = skopeo.build("five")
    source = f"{at.server.address}/team/source-{uuid4().hex[:8]}:v1"
    target = f"{at.server.address}/team/target-{uuid4().hex[:8]}:v1"
    skopeo.push(image, source)
    skopeo.push(f"docker://{source}", target, "--src-tls-verify=false")
    assert skopeo.pull(target)
    skopeo.delete(target)
    with pytest.raises(Failed):
        skopeo.pull(target)
    log_in(skopeo, at, "reader")
    with pytest.raises(Failed):
        skopeo.delete(source)
    assert skopeo.pull(source)

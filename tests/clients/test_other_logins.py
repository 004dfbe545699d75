"""Clients that log in in ways of their own: containerd, helm, crane, oras and regctl."""

import os
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from tests.clients.test_containerd import Containerd
from tests.http.access.conftest import guarded
from tests.support import images
from tests.support.engines import Failed, run
from tests.support.needs import need_go_client

NAME, PASSWORD = "alice", "password of alice"
REFUSED = r"(?i)denied|lacks the right|unauthorized|forbidden|authorization failed|401|403|credential"


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    with guarded(tmp_path_factory.mktemp("logins")) as found:
        found.facts.grant(found.facts.account(NAME, PASSWORD), "team/*", "pull", "push", "delete")
        found.facts.grant(found.facts.account("publisher", PASSWORD), "*", "push", "pull")
        yield found


@pytest.fixture
def own(tmp_path):
    """Return a function that runs a command with a home of its own."""

    def command(*words):
        homes = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "docker")}
        homes |= {f"HELM_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}
        return run(list(words), env=os.environ | homes, cwd=tmp_path)

    return command


@pytest.fixture
def source(at):
    """The reference of an image in a new repository of the team."""
    name, image = f"team/source-{uuid4().hex[:8]}", images.image("source", layer_bytes=1000)
    headers = at.basic("publisher", PASSWORD)
    for blob in image.blobs:
        path = f"/v2/{name}/blobs/uploads/?digest={images.descriptor(blob, '')['digest']}"
        assert at.ask("POST", path, headers, blob).status == 201
    typed = headers | {"Content-Type": image.media_type}
    assert at.ask("PUT", f"/v2/{name}/manifests/v1", typed, image.body).status == 201
    return f"{at.server.address}/{name}:v1"


def target(at, repository="team/target"):
    return f"{at.server.address}/{repository}-{uuid4().hex[:8]}:v1"


@pytest.mark.slow
def test_containerd_pulls_and_pushes_with_a_name_and_a_password(at, source):
    directory = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    containerd = Containerd(directory)
    try:
        with pytest.raises(Failed, match=REFUSED):
            containerd.command("content", "fetch", "--plain-http", source)
        with pytest.raises(Failed, match=REFUSED):
            containerd.command("content", "fetch", "--plain-http", "--user", f"{NAME}:wrong", source)
        user = ["--plain-http", "--user", f"{NAME}:{PASSWORD}"]
        containerd.command("content", "fetch", *user, source)
        pushed = target(at)
        containerd.command("images", "push", *user, pushed, source)
        containerd.command("content", "fetch", *user, pushed)
        with pytest.raises(Failed, match=REFUSED):
            containerd.command("images", "push", *user, target(at, "elsewhere/target"), source)
    finally:
        containerd.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.slow
def test_helm_logs_in_and_pushes_and_pulls_a_chart(at, own, tmp_path):
    helm = need_go_client("helm", "helm.sh/helm/v3/cmd/helm")
    (tmp_path / "chart").mkdir()
    (tmp_path / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: chart\nversion: 1.0.0\n")
    own(helm, "package", "chart")
    place = f"oci://{at.server.address}/team/charts"
    with pytest.raises(Failed, match=REFUSED):
        own(helm, "push", "--plain-http", "chart-1.0.0.tgz", place)
    own(helm, "registry", "login", "--plain-http", at.server.address, "-u", NAME, "-p", PASSWORD)
    own(helm, "push", "--plain-http", "chart-1.0.0.tgz", place)
    own(helm, "pull", "--plain-http", f"{place}/chart", "--version", "1.0.0", "--destination", str(tmp_path / "got"))
    with pytest.raises(Failed, match=REFUSED):
        own(helm, "push", "--plain-http", "chart-1.0.0.tgz", f"oci://{at.server.address}/elsewhere")


@pytest.mark.slow
def test_crane_logs_in_copies_and_deletes(at, own, source):
    crane = need_go_client("crane", "github.com/google/go-containerregistry/cmd/crane")
    with pytest.raises(Failed, match=REFUSED):
        own(crane, "manifest", "--insecure", source)
    own(crane, "auth", "login", at.server.address, "-u", NAME, "-p", PASSWORD)
    copied = target(at)
    own(crane, "copy", "--insecure", source, copied)
    digest = own(crane, "digest", "--insecure", copied).strip()
    assert digest == own(crane, "digest", "--insecure", source).strip()
    with pytest.raises(Failed, match=REFUSED):
        own(crane, "copy", "--insecure", source, target(at, "elsewhere/target"))
    own(crane, "delete", "--insecure", f"{copied.rpartition(':')[0]}@{digest}")
    with pytest.raises(Failed):
        own(crane, "digest", "--insecure", copied)


@pytest.mark.slow
def test_oras_logs_in_and_pushes_and_pulls_an_artifact(at, own, tmp_path):
    oras = need_go_client("oras", "oras.land/oras/cmd/oras")
    (tmp_path / "notes.txt").write_text("notes")
    pushed = target(at)
    with pytest.raises(Failed, match=REFUSED):
        own(oras, "push", "--plain-http", pushed, "notes.txt")
    own(oras, "login", "--plain-http", at.server.address, "-u", NAME, "-p", PASSWORD)
    own(oras, "push", "--plain-http", pushed, "notes.txt")
    own(oras, "pull", "--plain-http", pushed, "--output", str(tmp_path / "got"))
    assert (tmp_path / "got" / "notes.txt").read_text() == "notes"
    with pytest.raises(Failed, match=REFUSED):
        own(oras, "push", "--plain-http", target(at, "elsewhere/target"), "notes.txt")


@pytest.mark.slow
def test_regctl_logs_in_copies_and_deletes(at, own, source):
    regctl = need_go_client("regctl", "github.com/regclient/regclient/cmd/regctl")
    own(regctl, "registry", "set", "--tls", "disabled", at.server.address)
    with pytest.raises(Failed, match=REFUSED):
        own(regctl, "manifest", "get", source)
    own(regctl, "registry", "login", at.server.address, "-u", NAME, "-p", PASSWORD)
    copied = target(at)
    own(regctl, "image", "copy", source, copied)
    with pytest.raises(Failed, match=REFUSED):
        own(regctl, "image", "copy", source, target(at, "elsewhere/target"))
    own(regctl, "tag", "delete", copied)
    with pytest.raises(Failed):
        own(regctl, "manifest", "get", copied)

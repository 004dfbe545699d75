"""Helm charts whose versions have build metadata. Tags cannot have a `+`: helm writes `_` instead."""

import json
import os
import tarfile

import pytest

from tests.clients.test_push_here_pull_there import await_tag
from tests.support.engines import Failed, run
from tests.support.needs import need_go_client

OLDER, NEWER = "1.2.3+build.5", "1.3.0-rc.1+linux.amd64"


@pytest.fixture
def helm(tmp_path):
    """Run helm with directories of its own, over HTTP. Return what it prints."""
    path = need_go_client("helm", "helm.sh/helm/v3/cmd/helm")
    places = {f"HELM_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}

    def command(*words):
        return run([path, *words], env=os.environ | places, cwd=tmp_path)

    return command


@pytest.fixture
def pushed(helm, three_sites, repository, tmp_path):
    """The repository, as helm names it at the second site, of a chart that was pushed in two versions at the first."""
    (tmp_path / "chart").mkdir()
    for version in (OLDER, NEWER):
        (tmp_path / "chart" / "Chart.yaml").write_text(f"apiVersion: v2\nname: chart\nversion: {version}\n")
        helm("package", "chart")
        helm("push", "--plain-http", f"chart-{version}.tgz", f"oci://{three_sites[0].address}/{repository}")
        await_tag(three_sites, f"{repository}/chart", version.replace("+", "_"))
    return f"oci://{three_sites[1].address}/{repository}/chart"


@pytest.mark.parametrize("version", [OLDER, NEWER])
def test_chart_version_with_a_plus_is_pulled_from_another_site(version, helm, pushed, tmp_path):
    helm("pull", "--plain-http", pushed, "--version", version, "--destination", str(tmp_path))
    with tarfile.open(tmp_path / f"chart-{version}.tgz") as tar:
        assert f"version: {version}" in tar.extractfile("chart/Chart.yaml").read().decode().splitlines()


@pytest.mark.parametrize(("constraint", "found"), [("^1.0", OLDER), (">=1.3.0-0", NEWER)])
def test_chart_version_constraint_is_resolved_by_the_list_of_tags(constraint, found, helm, pushed):
    shown = helm("show", "chart", "--plain-http", pushed, "--version", constraint)
    assert f"version: {found}" in shown.splitlines()


def test_chart_version_with_a_plus_is_a_tag_with_an_underscore(pushed, three_sites, repository):
    client = three_sites[1].client
    assert client.tags(f"{repository}/chart") == [version.replace("+", "_") for version in (OLDER, NEWER)]
    manifest = json.loads(client.pull(f"{repository}/chart", OLDER.replace("+", "_")))
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
    assert manifest["annotations"]["org.opencontainers.image.version"] == OLDER


def test_chart_version_that_does_not_exist_is_not_found(helm, pushed):
    with pytest.raises(Failed, match="not found"):
        helm("pull", "--plain-http", pushed, "--version", "1.2.3+build.6")

"""Mistakes that are undone: what was deleted comes back from a bundle or a backup, and stays."""

import apsw
import pytest

from registry.catalog.catalog import PATH
from registry.cli.backup import backup
from registry.cli.bundle_export import export_bundle
from registry.cli.bundle_import import import_bundle
from tests.cli.test_cli import concord
from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow

KEPT, LOST, NEWER = (images.image(name, layers=2, layer_bytes=3000) for name in ("kept", "lost", "newer"))
INDEX = images.index(LOST)
KEYS = []


@pytest.fixture
def mistaken(tmp_path):
    """A data directory of which a backup and a bundle were made, and in which a tag was deleted and one moved since."""
    with running_server(tmp_path / "data", gc_grace_s="0", gc_interval_s="0") as server:
        server.client.push("prod/app", "kept", KEPT)
        server.client.push("prod/app", "lost", INDEX)
        server.client.push("prod/app", "moved", KEPT)
        backup(server.data, tmp_path / "backup")
        export_bundle(server.data, tmp_path / "bundle", [], KEYS)
        assert server.client.delete(f"/v2/prod/app/manifests/{INDEX.digest}").status == 202
        assert server.client.delete(f"/v2/prod/app/manifests/{LOST.digest}").status == 202
        server.client.push("prod/app", "moved", NEWER)
        assert server.client.request("POST", "/_concord/gc", b"{}").json()["removed"] > 0
    return server.data


def test_import_names_what_was_deleted_since_and_leaves_it_deleted(tmp_path, mistaken):
    done = concord("import", tmp_path / "bundle", "--data", mistaken)
    assert done.returncode == 0
    assert "still deleted (--reassert brings them back):\n  prod/app:lost\n  prod/app@" + LOST.digest in done.stdout
    assert "point elsewhere here, and go on doing so:\n  prod/app:moved" in done.stdout
    with running_server(mistaken) as server:
        assert server.client.tags("prod/app") == ["kept", "moved"]


def test_import_that_reasserts_brings_it_back_and_moves_no_tag(tmp_path, mistaken):
    done = concord("import", "--reassert", tmp_path / "bundle", "--data", mistaken)
    assert done.returncode == 0 and "brought back, since they had been deleted:\n  prod/app:lost\n" in done.stdout
    again = concord("import", "--reassert", tmp_path / "bundle", "--data", mistaken)
    assert "brought back" not in again.stdout, "it is there"
    with running_server(mistaken) as server:
        assert server.client.tags("prod/app") == ["kept", "lost", "moved"]
        assert server.client.pull("prod/app", "lost") == INDEX.body
        assert server.client.pull("prod/app", "moved") == NEWER.body
        assert server.client.get("/_concord/conflicts").json()["count"] == 0


def test_what_a_backup_holds_is_brought_back_by_exporting_it(tmp_path, mistaken):
    done = concord("export", "--data", tmp_path / "backup", tmp_path / "undo", "prod/app")
    assert done.returncode == 0, done
    assert "brought back" in concord("import", "--reassert", tmp_path / "undo", "--data", mistaken).stdout
    with running_server(mistaken) as server:
        assert server.client.pull("prod/app", "lost") == INDEX.body


def test_import_names_content_of_what_it_brings_back_that_is_nowhere(tmp_path, mistaken):
    layer = sha256(LOST.blobs[1])
    catalog = apsw.Connection(str(tmp_path / "backup" / PATH))
    catalog.execute("DELETE FROM content WHERE digest = ?", (layer,))
    catalog.close()
    export_bundle(tmp_path / "backup", tmp_path / "partial", [], KEYS)
    done = concord("import", "--reassert", tmp_path / "partial", "--data", mistaken)
    assert (
        done.returncode == 0
        and f"neither in the bundle nor here; another instance has to have them:\n  {layer}\n" in (done.stdout)
    )
    assert import_bundle(tmp_path / "bundle", mistaken, KEYS, reassert=True).lacking == ()


def test_what_was_deleted_comes_back_at_all_instances_and_others_do_not_delete_it_again(tmp_path):
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        eu.client.push("prod/app", "lost", LOST)
        eu.client.push("prod/app", "moved", KEPT)
        cluster.wait_agreed()
        backup(us.data, tmp_path / "backup")
        eu.client.delete(f"/v2/prod/app/manifests/{LOST.digest}")
        eu.client.push("prod/app", "moved", NEWER)
        cluster.wait_agreed()
        key = {"CONCORD_CLUSTER_KEY": us.environment["CONCORD_CLUSTER_KEY"]}
        done = concord("restore", tmp_path / "backup", "--data", tmp_path / "again", "--beside", eu.url, **key)
        assert f"not at {eu.url}" in done.stdout and "\n  prod/app:lost\n" in done.stdout, done
        assert f"point elsewhere at {eu.url}:\n  prod/app:moved\n" in done.stdout
        assert concord("export", "--data", tmp_path / "backup", tmp_path / "undo", "prod/app", **key).returncode == 0
        for data in (us.data, tmp_path / "new"):
            us.stop()
            assert concord("import", "--reassert", tmp_path / "undo", "--data", data, **key).returncode == 0
            us.data = data
            us.environment["CONCORD_DATA"] = str(data)
            us.start()
            wait_until(lambda: eu.client.tags("prod/app") == ["lost", "moved"])
            cluster.wait_agreed()
            assert eu.client.pull("prod/app", "lost") == LOST.body
            wait_until(lambda: {s.client.pull("prod/app", "moved") for s in cluster.servers} == {NEWER.body})
            eu.client.delete(f"/v2/prod/app/manifests/{LOST.digest}")
            cluster.wait_agreed()
            assert us.client.tags("prod/app") == ["moved"], "it can be deleted again"

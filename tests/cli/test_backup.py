"""Backups while serving, starting again from one, and a catalog that is lost."""

import os
import re
import threading
import time

import apsw
import pytest

from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord, refused
from tests.scenarios.test_copies import path_of
from tests.support import images
from tests.support.client import sha256
from tests.support.server import Server, free_port, running_cluster, running_server, wait_until

pytestmark = pytest.mark.slow


def restored(cluster, directory, backup, site="eu"):
    """An instance on a restored directory, in a running cluster."""
    done = concord("restore", backup, "--data", directory)
    assert done.returncode == 0, done
    server = Server(directory, site, [cluster.redis.url], port=free_port())
    cluster.servers.append(server.start())
    return server


def test_a_backup_made_while_pushing_has_everything_that_was_answered_before(tmp_path):
    image = images.image("before", layer_bytes=100_000)
    ended = threading.Event()
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "before", image)

        def go_on():
            number = 0
            while not ended.is_set():
                number += 1
                server.client.push("app", f"v{number}", images.image(number, layer_bytes=3000))

        pushing = threading.Thread(target=go_on)
        pushing.start()
        try:
            for _ in range(3):
                done = concord("backup", "--data", server.data, tmp_path / "backup")
                assert done.returncode == 0, done
        finally:
            ended.set()
            pushing.join()
    assert concord("restore", tmp_path / "backup", "--data", tmp_path / "again").returncode == 0
    assert concord("verify", "--data", tmp_path / "again").returncode == 0
    with running_server(tmp_path / "again") as again:
        for tag in again.client.tags("app"):
            again.client.pull("app", tag)
        assert again.client.pull("app", "before") == image.body


def test_the_next_backup_adds_what_is_new_and_removes_what_is_gone(tmp_path):
    first, second = images.image("first", layer_bytes=1000), images.image("second", layer_bytes=1000)
    with running_server(tmp_path / "data", gc_grace_s="0", gc_interval_s="0") as server:
        server.client.push("app", "v1", first)
        assert "3 of them new" in concord("backup", "--data", server.data, tmp_path / "backup").stdout
        assert "0 of them new" in concord("backup", "--data", server.data, tmp_path / "backup").stdout
        server.client.push("app", "v2", second)
        server.client.delete(f"/v2/app/manifests/{first.digest}")
        assert server.client.request("POST", "/_concord/gc", b"{}").json()["removed"] == 3
        done = concord("backup", "--copy", "--data", server.data, tmp_path / "backup")
        assert "3 contents" in done.stdout and "3 of them new" in done.stdout
        backed_up = Server(tmp_path / "backup")
        assert not any(path_of(backed_up, sha256(blob)).exists() for blob in first.blobs)


def test_a_restored_instance_is_another_and_merges_with_what_its_peers_did(tmp_path):
    gone, kept, later = (images.image(name, layer_bytes=2000) for name in ("gone", "kept", "later"))
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        eu.client.push("app", "gone", gone)
        eu.client.push("app", "kept", kept)
        cluster.wait_agreed()
        assert concord("backup", "--data", eu.data, tmp_path / "backup").returncode == 0
        before = eu.status()["instance"]
        us.client.delete("/v2/app/manifests/gone")
        us.client.push("app", "later", later)
        cluster.wait_agreed()
        again = restored(cluster, tmp_path / "again", tmp_path / "backup")
        assert again.status()["instance"] != before
        cluster.wait_agreed()
        for server in cluster.servers:
            assert server.client.tags("app") == ["kept", "later"]
        eu.kill()
        assert again.client.pull("app", "kept") == kept.body
        again.client.push("app", "new", images.image("new"))
        wait_until(lambda: "new" in us.client.tags("app"), 10)


def test_damaged_content_of_a_backup_is_named_and_left_out(tmp_path):
    image = images.image("damaged", layers=3, layer_bytes=1000)
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", image)
        concord("backup", "--copy", "--data", server.data, tmp_path / "backup")
    backed_up = Server(tmp_path / "backup")
    path_of(backed_up, sha256(image.blobs[1])).write_bytes(b"x" * 1000)
    path_of(backed_up, sha256(image.blobs[2])).unlink()
    done = concord("restore", tmp_path / "backup", "--data", tmp_path / "again")
    assert done.returncode == 1 and "2 missing or damaged" in done.stdout
    assert sha256(image.blobs[1]) in done.stdout and sha256(image.blobs[2]) in done.stdout
    assert concord("verify", "--data", tmp_path / "again").returncode == 0


def test_a_restore_that_was_broken_off_goes_on(tmp_path):
    image = images.image("broken off", layers=3, layer_bytes=1000)
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", image)
        concord("backup", "--copy", "--data", server.data, tmp_path / "backup")
    half = tmp_path / "half"
    first = path_of(Server(half), sha256(image.blobs[1]))
    first.parent.mkdir(parents=True)
    first.write_bytes(image.blobs[1][:500])
    (half / "restoring").touch()
    (half / "catalog.sqlite.part").write_bytes(b"half")
    assert concord("restore", tmp_path / "backup", "--data", half).returncode == 0
    with running_server(half) as again:
        assert again.client.pull("app", "v1") == image.body


def test_nothing_is_written_over(tmp_path):
    with running_server(tmp_path / "data") as server:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "thesis.tex").write_text("years")
        refused(concord("backup", "--data", server.data, tmp_path / "other"), "neither empty nor a backup")
        refused(concord("backup", "--data", server.data, server.data), "neither empty nor a backup")
        refused(concord("backup", "--data", tmp_path / "other", tmp_path / "backup"), "not a data directory")
        refused(concord("restore", tmp_path / "other", "--data", tmp_path / "again"), "not a backup")
        concord("backup", "--data", server.data, tmp_path / "backup")
        refused(concord("restore", tmp_path / "backup", "--data", tmp_path / "other"), "not empty")
        refused(concord("rebuild", "--data", server.data), "in use")
    refused(concord("rebuild", "--data", tmp_path / "nothing"), "no content")


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_catalog_that_is_lost_or_damaged_ends_the_start_and_is_rebuilt_from_peers(tmp_path, harm):
    image = images.image("rebuilt", layer_bytes=50_000)
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        eu.client.push("app", "v1", image)
        cluster.wait_agreed()
        eu.stop()
        catalog = eu.data / "catalog.sqlite"
        if harm == "lost":
            catalog.unlink()
        else:
            catalog.write_bytes(b"nothing that SQLite could read" * 1000)
        eu.start(wait=False)
        assert eu.process.wait(30) == 2
        eu.process = None
        (line,) = eu.logged(LogEvent.START_FAILED)
        assert line["reason"] == ("catalog-lost" if harm == "lost" else "catalog-corrupt")
        done = concord("rebuild", "--data", eu.data)
        assert done.returncode == 0 and "3 contents" in done.stdout, done
        assert "If the old one (concord status at another instance shows its id) will not come back" in done.stdout
        eu.start()
        assert f"this directory is instance {eu.status()['instance']} now" in done.stdout
        wait_until(lambda: eu.client.tags("app") == ["v1"], 15)
        us.kill()
        assert eu.client.pull("app", "v1") == image.body


def test_a_catalog_that_is_whole_is_not_rebuilt(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("whole"))
        assert server.stop() == 0
        refused(concord("rebuild", "--data", server.data), "is whole")
        server.start()
        assert server.client.tags("app") == ["v1"]


def test_a_backup_of_another_instance_is_not_replaced(tmp_path):
    for name in ("first", "second"):
        with running_server(tmp_path / name) as server:
            server.client.push("app", name, images.image(name))
    assert concord("backup", "--data", tmp_path / "first", tmp_path / "backup").returncode == 0
    refused(concord("backup", "--data", tmp_path / "second", tmp_path / "backup"), "another instance")
    assert concord("verify", "--data", tmp_path / "backup").returncode == 0


@pytest.mark.parametrize("how", [[], ["--copy"]], ids=["linked", "copied"])
def test_what_was_mended_after_a_backup_is_mended_in_the_next(tmp_path, how):
    image = images.image("mended", layer_bytes=5000)
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", image)
        place = path_of(server, sha256(image.blobs[1]))
        good = place.read_bytes()
        assert concord("backup", *how, "--data", server.data, tmp_path / "backup").returncode == 0
        (tmp_path / "backup" / place.relative_to(server.data)).write_bytes(b"x" * len(good))
        mended = place.with_name("mended")
        mended.write_bytes(good)
        mended.replace(place)
        assert concord("backup", *how, "--data", server.data, tmp_path / "backup").returncode == 0
    assert concord("verify", "--data", tmp_path / "backup").returncode == 0


def test_damaged_content_is_not_copied_into_a_backup(tmp_path):
    image = images.image("damaged", layer_bytes=5000)
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", image)
        place = path_of(server, sha256(image.blobs[1]))
        place.write_bytes(b"x" * place.stat().st_size)
        done = concord("backup", "--copy", "--data", server.data, tmp_path / "backup")
        assert done.returncode == 1 and sha256(image.blobs[1]) in done.stdout


@pytest.mark.parametrize("command", [["backup"], ["export"]], ids=lambda command: command[0])
def test_a_target_that_cannot_be_used_is_one_line(tmp_path, command):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("one line"))
    (tmp_path / "file").write_text("")
    refused(concord(*command, "--data", tmp_path / "data", tmp_path / "file"), "cannot be used")


def test_a_backup_whose_catalog_names_paths_is_refused(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("named"))
    assert concord("backup", "--data", tmp_path / "data", tmp_path / "backup").returncode == 0
    outside = tmp_path / "outside"
    outside.write_text("somebody's")
    catalog = apsw.Connection(str(tmp_path / "backup" / "catalog.sqlite"))
    row = ("sha256:" + "../" * 4 + "outside", 10, b"", 0, 0)
    catalog.execute(
        "INSERT INTO content (digest, size, chunk_digests, checked_ms, used_ms) VALUES (?, ?, ?, ?, ?)", row
    )
    catalog.close()
    refused(concord("restore", tmp_path / "backup", "--data", tmp_path / "restored"), "content that is none")
    assert outside.read_text() == "somebody's"


def test_a_file_that_cannot_be_read_does_not_end_a_rebuild(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("unreadable"))
    (tmp_path / "data" / "catalog.sqlite").unlink()
    unreadable = tmp_path / "data" / "blobs" / "sha256" / "00" / ("0" * 64)
    unreadable.mkdir()
    done = concord("rebuild", "--data", tmp_path / "data")
    assert done.returncode == 1 and str(unreadable) in done.stdout and done.stdout.count("3 contents") == 1


def test_a_restore_names_the_old_id_that_is_to_be_removed_and_the_new_one(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("named"))
        old = server.status()["instance"]
        concord("backup", "--data", server.data, tmp_path / "backup")
    done = concord("restore", tmp_path / "backup", "--data", tmp_path / "again")
    with running_server(tmp_path / "again") as again:
        new = again.status()["instance"]
    assert f"this directory is instance {new} now. If the old one ({old}) will not come back, remove it" in done.stdout
    assert f"concord forget URL {old[:12]}" in done.stdout


def test_a_rebuild_names_the_old_id_where_it_can_still_be_read(tmp_path):
    with running_server(tmp_path / "data") as server:
        for number in range(20):
            server.client.push(f"app{number}", "v1", images.image(("rebuilt", number)))
        old = server.status()["instance"]
        assert server.stop() == 0
    catalog = tmp_path / "data" / "catalog.sqlite"
    content = bytearray(catalog.read_bytes())
    content[-20_000:] = b"\xaa" * 20_000
    catalog.write_bytes(content)
    done = concord("rebuild", "--data", tmp_path / "data")
    assert done.returncode == 0 and f"If the old one ({old}) will not come back" in done.stdout, done


def test_the_last_backup_is_shown_by_the_instance_it_was_made_of(tmp_path):
    with running_server(tmp_path / "data") as server:
        assert server.status()["maintenance"]["backup"] is None
        assert b"last_backup" not in server.client.get("/metrics").body
        assert "last backup never" in concord("status", server.url).stdout
        server.client.push("app", "v1", images.image("backed up", layers=1))
        assert concord("backup", "--data", server.data, tmp_path / "backup").returncode == 0
        note = server.status()["maintenance"]["backup"]
        assert abs(note["ended_ms"] / 1000 - time.time()) < 60
        assert (note["contents"], note["missing"], note["target"]) == (2, 0, str(tmp_path / "backup"))
        assert b"\nconcord_last_backup_timestamp_seconds 1" in server.client.get("/metrics").body
        assert re.search(r"last backup \d+ s ago", concord("status", server.url).stdout)
        (server.data / "last_backup.json").write_text("nonsense")
        assert server.status()["maintenance"]["backup"] is None


def test_the_last_collection_and_the_last_check_are_shown(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("checked", layers=1))
        before = server.status()["maintenance"]
        assert (before["collection_ms"], before["scrub_ms"]) == (None, None)
        assert abs(before["oldest_check_ms"] / 1000 - time.time()) < 60, "it was checked as it came"
        assert concord("gc", "--dry-run", server.url).returncode == 0
        assert server.status()["maintenance"]["collection_ms"] is None
        assert concord("gc", server.url).returncode == 0
        assert concord("scrub", "--wait", server.url).returncode == 0
        last = server.status()["maintenance"]
        assert abs(last["collection_ms"] / 1000 - time.time()) < 60 and abs(last["scrub_ms"] / 1000 - time.time()) < 60
        for name in (b"last_collection", b"last_scrub", b"oldest_check"):
            assert b"\nconcord_" + name + b"_timestamp_seconds 1" in server.client.get("/metrics").body


@pytest.mark.parametrize("put", [lambda file: file.symlink_to("/dev/zero"), os.mkfifo], ids=["endless", "pipe"])
@pytest.mark.parametrize("what", ["catalog.sqlite", "blobs/*/*/*"])
def test_a_backup_with_something_that_is_no_regular_file_does_not_hold_up_a_restore(tmp_path, what, put):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image("backed up"))
        empty = server.client.push_blob("app", b"")
    assert concord("backup", "--data", tmp_path / "data", tmp_path / "backup").returncode == 0
    file = next(tmp_path.glob(f"backup/blobs/*/*/{empty[7:]}" if "blobs" in what else f"backup/{what}"))
    file.unlink()
    put(file)
    done = concord("restore", tmp_path / "backup", "--data", tmp_path / "again")
    if what == "catalog.sqlite":
        assert done.returncode == 2 and "concord: " in done.stderr, done
    else:
        assert done.returncode == 1 and f"{empty}: missing" in done.stdout, done

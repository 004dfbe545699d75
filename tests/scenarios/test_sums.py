"""Sums of what manifests need and disks hold; and a catalog that was changed behind the registry's back."""

import contextlib

import apsw
import pytest

from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord, refused
from tests.support import images
from tests.support.client import sha256
from tests.support.server import running_cluster, running_server, wait_until


def sums(server, prefix=""):
    return server.client.get(f"/_concord/digest?content={prefix}").json()


def test_what_is_needed_is_the_same_everywhere_and_what_is_held_comes_to_it(tmp_path):
    image, other = images.image("needed", layer_bytes=3000), images.image("other", layer_bytes=3000)
    index = images.index(image)
    with running_cluster(tmp_path, ["eu", "us"]) as cluster:
        eu, us = cluster.servers
        eu.client.push("prod/app", "v1", index)
        eu.client.push("test/app", "v1", other)
        cluster.wait_agreed()
        at_eu, at_us = sums(eu), sums(us)
        assert at_eu["needed"] == at_us["needed"] == at_eu["held"]
        assert at_eu["needed"]["contents"] == len(image.blobs) + len(other.blobs) + 3
        blobs = {sha256(blob) for blob in (*image.blobs, *other.blobs)}
        assert set(at_us["missing"]) == blobs and at_us["dangling"] == []
        us.client.pull("prod/app", "v1")
        wait_until(lambda: sums(us, "prod/")["missing_count"] == 0)
        assert sums(us, "prod/")["held"] == sums(eu, "prod/")["needed"]
        assert set(sums(us)["missing"]) == {sha256(blob) for blob in other.blobs}
        done = concord("digest", "--content", "prod/", us.url)
        assert done.returncode == 0 and "0 missing here, 0 dangling" in done.stdout
        done = concord("digest", "--content", "", us.url)
        assert done.returncode == 1 and sha256(other.blobs[0]) in done.stdout
        eu.client.delete(f"/v2/test/app/manifests/{other.digest}")
        assert set(sums(eu)["dangling"]) >= {sha256(blob) for blob in other.blobs}
        assert set(sums(eu, "test/")["dangling"]) == {sha256(blob) for blob in other.blobs}


def test_sums_of_no_repository_are_refused_and_of_an_empty_registry_are_not(tmp_path):
    with running_server(tmp_path / "data") as server:
        assert concord("digest", "--content", "", server.url).returncode == 0
        server.client.push("prod/app", "v1", images.image())
        refused(concord("digest", "--content", "prdo/", server.url), "answered 404")
        refused(concord("digest", "--json", "--content", "prod/apple", server.url), "answered 404")
        assert concord("digest", "--content", "prod/a", server.url).returncode == 0


@pytest.mark.parametrize(("end", "kept"), [("stop", True), ("kill", None)])
def test_the_digest_of_an_orderly_end_is_compared_at_the_next_start(tmp_path, end, kept):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image())
        getattr(server, end)()
        server.start()
        assert server.status()["digest_matches_last_shutdown"] is kept


def test_a_catalog_that_was_changed_meanwhile_is_noticed(tmp_path):
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", images.image())
        server.stop()
        with contextlib.closing(apsw.Connection(str(server.data / "catalog.sqlite"))) as catalog:
            catalog.execute("UPDATE documents SET digest = zeroblob(16)")
        server.start()
        assert server.status()["digest_matches_last_shutdown"] is False
        assert server.logged(LogEvent.STATE_DIGEST_MISMATCHED)

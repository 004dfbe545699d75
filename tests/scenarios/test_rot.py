"""Disks that give back other bytes than they were given, at real instances."""

import contextlib
import http.client
import random
import time

import apsw
import pytest

from tests.scenarios.test_fetch import LARGE, SMALL, content_path, flip_a_bit, linked_sites
from tests.support import images
from tests.support.client import sha256
from tests.support.server import wait_until

ALWAYS = {"verify_after_s": "0", "holder_wait_s": "2"}


def begin_pull(server, digest):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", f"/v2/app/blobs/{digest}")
    return connection.getresponse()


def damage_in_place(server, digest, at):
    """As a disk does it: the file that is open is the one that is damaged."""
    with content_path(server, digest).open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def quarantined(server):
    return [path.name for path in (server.data / "quarantine").iterdir()]


def test_a_bit_that_flips_in_the_middle_of_a_pull_is_mended_from_another_holder(tmp_path):
    with linked_sites(tmp_path, [None, None], **ALWAYS) as (cluster, _):
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster[1].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        response = begin_pull(cluster[0], digest)
        first = response.read(1000)
        damage_in_place(cluster[0], digest, 20_000_000)
        assert first + response.read() == LARGE
        wait_until(lambda: content_path(cluster[0], digest).exists())
        assert sha256(content_path(cluster[0], digest).read_bytes()) == digest
        status = cluster[0].status()
        assert (status["content_quarantined"], status["content_repaired"]) == (1, 1)
        assert status["fetched_bytes"] == 2**20, "the damaged MiB alone"
        assert len(quarantined(cluster[0])) == 1


def test_a_pull_whose_only_copy_is_damaged_is_cut_off_where_the_damage_begins(tmp_path):
    with linked_sites(tmp_path, [None, None], **ALWAYS) as (cluster, _):
        digest = cluster[0].client.push_blob("app", LARGE)
        response = begin_pull(cluster[0], digest)
        received = response.read(1000)
        damage_in_place(cluster[0], digest, 20_000_000)
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()
        received += broken.value.partial
        assert LARGE.startswith(received)
        assert len(received) <= 20_000_000
        assert cluster[0].client.get(f"/v2/app/blobs/{digest}").status == 503
        cluster[0].client.push_blob("app", LARGE)
        assert cluster[0].client.get(f"/v2/app/blobs/{digest}").body == LARGE, "pushing it again heals it"


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_a_damaged_only_copy_is_unreachable_content(tmp_path, content):
    with linked_sites(tmp_path, [None, None], **ALWAYS) as (cluster, _):
        digest = cluster[0].client.push_blob("app", content)
        cluster.wait_agreed()
        flip_a_bit(cluster[0], digest)
        for server in (cluster[1], cluster[0]):
            begun = time.monotonic()
            answer = server.client.get(f"/v2/app/blobs/{digest}")
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert time.monotonic() - begun > 1.5, "an instance may come that has it"
        assert cluster[0].client.head(f"/v2/app/blobs/{digest}").status == 404


def test_ranges_of_damaged_content_are_right(tmp_path):
    with linked_sites(tmp_path, [None, None], **ALWAYS) as (cluster, _):
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster[1].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        flip_a_bit(cluster[0], digest, at=5_000_000)
        for first, last in [(0, 99), (4_999_999, 5_000_001), (4_900_000, 24_000_000 - 1), (5_000_000, 5_000_000)]:
            answer = cluster[0].client.get(f"/v2/app/blobs/{digest}", Range=f"bytes={first}-{last}")
            assert (answer.status, answer.body) == (206, LARGE[first : last + 1])


def test_damaged_content_at_another_instance_does_not_come_here(tmp_path):
    """With its bytes unchecked a client that has begun to get it would fail for good."""
    with linked_sites(tmp_path, [None, None, None], verify_after_s="0") as (cluster, _):
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster[1].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        flip_a_bit(cluster[0], digest, at=5_000_000)
        flip_a_bit(cluster[1], digest, at=15_000_000)
        assert cluster[2].client.get(f"/v2/app/blobs/{digest}").body == LARGE


def test_two_copies_found_damaged_at_the_same_time_make_a_whole_one(tmp_path):
    """Each was put aside before it could be asked for what is right in it, and the content was lost for good."""
    with linked_sites(tmp_path, [None, None], verify_after_s="0") as (cluster, _):
        for number in range(3):
            content = random.Random(number).randbytes(6_000_000)
            digest = cluster[0].client.push_blob("app", content)
            cluster[1].client.push_blob("app", content)
            cluster.wait_agreed()
            flip_a_bit(cluster[0], digest, at=1_500_000)
            flip_a_bit(cluster[1], digest, at=1_000 + 2**20 * number)
            responses = [begin_pull(server, digest) for server in cluster.servers]
            for response in responses:
                with contextlib.suppress(http.client.IncompleteRead):
                    assert response.read() == content
            for server in cluster.servers:
                if number != 1:  # the same MiB of both is damaged: that is lost
                    assert server.client.get(f"/v2/app/blobs/{digest}").body == content


@contextlib.contextmanager
def catalog_of(server):
    with contextlib.closing(apsw.Connection(str(server.data / "catalog.sqlite"))) as catalog:
        catalog.set_busy_timeout(5000)
        yield catalog


def body_of(server, digest):
    with catalog_of(server) as catalog:
        return catalog.execute("SELECT body FROM manifests WHERE digest = ?", (digest,)).fetchone()[0]


def damage_body(server, digest):
    body = bytearray(body_of(server, digest))
    body[5] ^= 1
    with catalog_of(server) as catalog:
        catalog.execute("UPDATE manifests SET body = ? WHERE digest = ?", (bytes(body), digest))


def test_a_manifest_that_has_changed_in_the_catalog_is_fetched_again(tmp_path):
    image = images.image("rotten")
    with linked_sites(tmp_path, [None, None]) as (cluster, _):
        digest = cluster[0].client.push("app", "v1", image)
        cluster.wait_agreed()
        wait_until(lambda: cluster[1].status()["manifests_missing"] == 0)
        damage_body(cluster[0], digest)
        assert cluster[0].client.get("/v2/app/manifests/v1").body == image.body
        assert body_of(cluster[0], digest) == image.body
        damage_body(cluster[0], digest)
        assert cluster[0].client.request("POST", "/_concord/scrub").status == 202
        last = wait_until(lambda: cluster[0].client.get("/_concord/scrub").json()["last"])
        assert (last["corrupt"], last["repaired"]) == (1, 1)
        assert body_of(cluster[0], digest) == image.body


def test_what_cannot_be_mended_now_is_when_somebody_has_it(tmp_path):
    content = random.Random("later").randbytes(3_000_000)
    constants = {"registry.cluster.transfer.scrubber.CHECK_INTERVAL_S": 0.5}
    with linked_sites(tmp_path, [None, None], constants=constants, **ALWAYS) as (cluster, _):
        digest = cluster[0].client.push_blob("app", content)
        flip_a_bit(cluster[0], digest)
        assert cluster[0].client.get(f"/v2/app/blobs/{digest}").status == 503
        cluster[1].client.push_blob("app", content)
        wait_until(content_path(cluster[0], digest).exists)
        wait_until(lambda: cluster[0].status()["content_repaired"] == 1)

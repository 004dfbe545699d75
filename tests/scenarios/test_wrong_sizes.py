"""A member's facts state wrong sizes of contents and manifests. Answers take sizes from the bytes themselves: none is
cut short, none waits for bytes that do not come, and each such fact is an alarm."""

import re

import pytest

from crdt.fact import blob_fact, manifest_fact
from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.catalog.catalog import Catalog
from registry.catalog.change_sink import Unpublished
from registry.telemetry.events import LogEvent
from tests.support import images
from tests.support.client import sha256
from tests.support.server import Cluster, running_server, wait_until

IMAGE = images.image("sizes", layers=2, layer_bytes=700_000)
SBOM = images.artifact(b"a list of parts", "application/sbom", IMAGE)
WRONG = {"too small": lambda size: max(size - 5, 1), "too large": lambda size: size + 7, "nothing": lambda size: 0}


async def lie(data, wrong):
    """State wrong sizes of everything, later than any instance has stated them. Return how many were noticed."""
    catalog = Catalog(SystemDisk(data), SystemClock())
    await catalog.start()
    catalog.database.attach(Unpublished())
    stamp = catalog.documents.clock.tick(SystemClock().now_ms() + 1000), catalog.documents.writer
    facts = [blob_fact(sha256(blob), wrong(len(blob)), *stamp) for blob in (*IMAGE.blobs, *SBOM.blobs)]
    facts += [manifest_fact(one.digest, one.media_type, wrong(len(one.body)), *stamp) for one in (IMAGE, SBOM)]
    await catalog.database.write(lambda tx: catalog.documents.write(tx, "repository/app", [], facts))
    count = catalog.wrong_sizes.count
    await catalog.stop()
    return count, len(facts)


def check_answers(client):
    """Everything is answered whole, and as long as it is."""
    for _ in range(2):  # the second time from what is kept
        for blob in (*IMAGE.blobs, *SBOM.blobs):
            path = f"/v2/app/blobs/{sha256(blob)}"
            assert client.head(path).headers["Content-Length"] == str(len(blob))
            answer = client.get(path)
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(blob)))
            assert answer.body == blob
            part = client.request("GET", path, headers={"Range": "bytes=-3"})
            assert (part.status, part.body) == (206, blob[-3:])
            assert part.headers["Content-Range"].endswith(f"/{len(blob)}")
        for one in (IMAGE, SBOM):
            for reference in (one.digest, "v1" if one is IMAGE else "sbom"):
                path = f"/v2/app/manifests/{reference}"
                assert client.head(path).headers["Content-Length"] == str(len(one.body))
                answer = client.get(path)
                assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(one.body)))
                assert answer.body == one.body
    (listed,) = client.get(f"/v2/app/referrers/{IMAGE.digest}").json()["manifests"]
    assert listed["size"] == len(SBOM.body)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("kind", WRONG)
async def test_answers_from_this_disk_have_the_size_of_the_content(tmp_path, kind, workers):
    with running_server(tmp_path / "data", workers=workers) as server:
        server.client.push("app", "v1", IMAGE)
        server.client.push("app", "sbom", SBOM)
        server.stop()
        noticed, stated = await lie(tmp_path / "data", WRONG[kind])
        assert noticed == stated
        server.start()
        check_answers(server.client)


@pytest.mark.parametrize("kind", WRONG)
async def test_content_of_another_instance_is_fetched_whatever_size_its_link_states(tmp_path, kind):
    cluster = Cluster(tmp_path, ["eu", "us"], with_redis=False)
    try:
        cluster.start()
        eu, us = cluster.servers
        eu.client.push("app", "v1", IMAGE)
        eu.client.push("app", "sbom", SBOM)
        eu.stop()
        _, stated = await lie(eu.data, WRONG[kind])
        eu.start()
        cluster.wait_acquainted()
        cluster.wait_agreed()
        us.client.timeout_s = 30.0
        check_answers(us.client)

        def noticed():
            found = re.search(rb"^concord_size_mismatches_total (\d+)", us.client.get("/metrics").body, re.MULTILINE)
            return int(found[1]) == stated

        wait_until(noticed)
        assert len(us.logged(LogEvent.SIZE_FACT_MISMATCHED)) == stated
    finally:
        cluster.stop()


async def test_a_push_does_not_repeat_a_wrong_size(tmp_path):
    """An instance that takes a push states the size of what is on its disk."""
    with running_server(tmp_path / "data") as server:
        server.client.push("app", "v1", IMAGE)
        server.client.push("app", "sbom", SBOM)
        server.stop()
        await lie(tmp_path / "data", WRONG["too small"])
        server.start()
        answer = server.client.put_manifest("app", "v2", IMAGE.body, IMAGE.media_type)
        assert answer.status == 201
        server.stop()
    catalog = Catalog(SystemDisk(tmp_path / "data"), SystemClock())
    for blob in IMAGE.blobs:
        sizes = catalog.database.rows("SELECT size FROM facts WHERE kind = 'b' AND key = ?", (sha256(blob),))
        assert sizes == [(len(blob),)]

"""Ranges of content that another instance holds are answered from the MiBs that they are in, and move no others."""

import os
import random
import re

import pytest

from tests.support.server import running_cluster

pytestmark = pytest.mark.slow

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(12 * MIB + 345)


def metric(server, name):
    """Return the sum of a metric over its labels."""
    text = server.client.get("/metrics").body.decode()
    return sum(map(float, re.findall(rf"^concord_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def sent_to_peers(server):
    """Return the bytes of content that an instance has sent to others."""
    text = server.client.get("/metrics").body.decode()
    found = re.findall(r'^concord_sent_bytes_total\{.*route="[^"]*peer[^"]*".*\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("ranges"), ["eu", "us"], copies="eu=1") as running:
        yield running


def test_a_range_moves_the_mibs_that_it_is_in_and_no_others(cluster, repository):
    content = os.urandom(MIB) + CONTENT
    digest = cluster[0].client.push_blob(repository, content)
    cluster.wait_agreed()
    before = metric(cluster[1], "fetched_bytes_total")
    first, last = 9 * MIB - 10, 9 * MIB + 99
    answer = cluster[1].client.get(f"/v2/{repository}/blobs/{digest}", Range=f"bytes={first}-{last}")
    assert (answer.status, answer.body) == (206, content[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"
    assert metric(cluster[1], "range_fetched_bytes_total") == 2 * MIB
    assert metric(cluster[1], "fetched_bytes_total") - before == 2 * MIB

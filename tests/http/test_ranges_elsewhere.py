"""Ranges of content that another instance holds are answered from the MiBs that they are in, and move no others."""

import http.client
import os
import random
import re

import pytest

from registry.telemetry.events import LogEvent
from tests.http.test_several_ranges import asks
from tests.scenarios.test_fetch import content_path, linked_sites
from tests.support.server import running_cluster, wait_until

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


def test_several_ranges_in_any_order_move_their_mibs_alone(cluster, repository):
    content = os.urandom(MIB) + CONTENT
    cluster[0].client.push_blob(repository, content)
    cluster.wait_agreed()
    before = sent_to_peers(cluster[0])
    ranges = [(9 * MIB, 9 * MIB + 9), (5, 99), (4 * MIB + 7, 4 * MIB + 7), (2 * MIB - 5, 2 * MIB + 5)]
    assert asks(cluster[1].client, repository, content, ranges)
    assert asks(cluster[1].client, repository, content, sorted(ranges))
    assert 5 * MIB <= sent_to_peers(cluster[0]) - before < 5.1 * MIB
    assert not content_path(cluster[1], cluster[0].client.push_blob(repository, content)).exists()


def test_the_whole_follows_where_ranges_have_moved_more_than_it_has(cluster, repository):
    content = os.urandom(40 * MIB)
    digest = cluster[0].client.push_blob(repository, content)
    cluster.wait_agreed()
    path = f"/v2/{repository}/blobs/{digest}"
    for _ in range(2):
        answer = cluster[1].client.get(path, Range=f"bytes={MIB}-")
        assert answer.body == content[MIB:]
    wait_until(content_path(cluster[1], digest).exists)


@pytest.mark.parametrize("settings", [{"fetch_whole": "always"}, {"copies": "2", "fetch_whole": "assigned"}])
def test_the_whole_follows_a_range_by_policy(tmp_path, settings):
    with running_cluster(tmp_path, ["eu", "us"], **settings) as cluster:
        digest = cluster[0].client.push_blob("app", CONTENT)
        cluster.wait_agreed()
        answer = cluster[1].client.get(f"/v2/app/blobs/{digest}", Range="bytes=5-9")
        assert (answer.status, answer.body) == (206, CONTENT[5:10])
        wait_until(content_path(cluster[1], digest).exists)


@pytest.fixture(scope="module")
def two_holders(tmp_path_factory):
    """Two holders behind links of 40 MB/s, and an instance without copies."""
    directory = tmp_path_factory.mktemp("holders")
    with linked_sites(directory, [40e6, 40e6, None], holder_wait_s="2") as (cluster, links):
        yield cluster, links


def pushed_twice(cluster, repository, content):
    for holder in (cluster[0], cluster[1]):
        digest = holder.client.push_blob(repository, content)
    cluster.wait_agreed()
    return digest


@pytest.mark.parametrize("first", [0, MIB], ids=["all of it", "most of it"])
def test_two_holders_share_the_work(two_holders, repository, first):
    cluster, _ = two_holders
    content = os.urandom(64 * MIB)
    digest = pushed_twice(cluster, repository, content)
    before = [sent_to_peers(holder) for holder in (cluster[0], cluster[1])]
    answer = cluster[2].client.get(f"/v2/{repository}/blobs/{digest}", Range=f"bytes={first}-")
    assert (answer.status, answer.body) == (206, content[first:])
    sent = [sent_to_peers(holder) - was for holder, was in zip((cluster[0], cluster[1]), before, strict=True)]
    assert min(sent) > 16 * MIB and sum(sent) < 66 * MIB, sent


def test_a_mib_that_is_corrupt_at_one_holder_comes_from_the_other(two_holders, repository):
    cluster, _ = two_holders
    content = os.urandom(64 * MIB)
    digest = pushed_twice(cluster, repository, content)
    with content_path(cluster[0], digest).open("r+b") as file:
        for mib in range(1, 64):
            file.seek(mib * MIB + 5)
            file.write(bytes([content[mib * MIB + 5] ^ 1]))
    before = metric(cluster[2], "range_corrupt_mibs_total")
    answer = cluster[2].client.get(f"/v2/{repository}/blobs/{digest}", Range=f"bytes={MIB}-")
    assert answer.body == content[MIB:]
    assert 1 <= metric(cluster[2], "range_corrupt_mibs_total") - before <= 2, "a stream ends at its first wrong MiB"
    assert 1 <= len(cluster[2].logged(LogEvent.WRONG_BYTES_RECEIVED, digest=digest)) <= 2


@pytest.mark.parametrize("left", [1, 0])
def test_an_answer_goes_on_while_a_holder_is_left_and_ends_without_one(two_holders, repository, left):
    cluster, links = two_holders
    content = os.urandom(64 * MIB)
    digest = pushed_twice(cluster, repository, content)
    connection = http.client.HTTPConnection("127.0.0.1", cluster[2].port, timeout=30)
    connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers={"Range": f"bytes={MIB}-"})
    response = connection.getresponse()
    received = response.read(MIB)
    cut = links[: 2 - left]
    try:
        for link in cut:
            link.cut()
        if left:
            assert received + response.read() == content[MIB:]
        else:
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)) as ended:
                response.read()
            if isinstance(ended.value, http.client.IncompleteRead):
                assert content[2 * MIB :].startswith(ended.value.partial)
    finally:
        for link in cut:
            link.mend()
    wait_until(lambda: all(member["reachable"] for member in cluster[2].status()["members"]))

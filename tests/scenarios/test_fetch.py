"""Content on demand from peers: one transfer, many readers, nothing that is not verified."""

import contextlib
import http.client
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import sha256
from tests.support.link import Link
from tests.support.server import Cluster, Redis, Server, free_port, wait_until

SMALL = random.Random(1).randbytes(200_000)
LARGE = random.Random(2).randbytes(24_000_000)


@contextlib.contextmanager
def linked_sites(directory, rates, **settings):
    """Instances each of which the others reach through a link with a rate in bytes per second."""
    redis = Redis(directory).start()
    with contextlib.ExitStack() as stack:
        stack.callback(redis.kill)
        servers, links = [], []
        for number, rate in enumerate(rates):
            port = free_port()
            link = stack.enter_context(Link(f"127.0.0.1:{port}", rate))
            server = Server(
                directory / str(number), f"site{number}", [redis.url], port=port, advertise=link.url, **settings
            )
            stack.callback(server.kill)
            servers.append(server.start(wait=False))
            links.append(link)
        cluster = Cluster.__new__(Cluster)
        cluster.servers, cluster.redis = servers, redis
        for server in servers:
            server.wait_ready()
        cluster.wait_acquainted()
        yield cluster, links


def content_path(server, digest):
    return server.data / "blobs" / "sha256" / digest[7:9] / digest[7:]


def flip_a_bit(server, digest, at=1000):
    path = content_path(server, digest)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def transfers(server):
    return server.status()["fetched_bytes"]


def test_a_blob_is_fetched_when_it_is_asked_for_and_kept(tmp_path):
    with linked_sites(tmp_path, [None, None]) as (cluster, links):
        digest = cluster[0].client.push_blob("app", SMALL)
        cluster.wait_agreed()
        assert cluster[1].client.head(f"/v2/app/blobs/{digest}").status == 200
        assert not content_path(cluster[1], digest).exists()
        assert cluster[1].client.get(f"/v2/app/blobs/{digest}").body == SMALL
        wait_until(content_path(cluster[1], digest).exists)
        links[0].cut()
        assert cluster[1].client.get(f"/v2/app/blobs/{digest}").body == SMALL


def test_a_hundred_cold_pulls_are_one_transfer(tmp_path):
    with linked_sites(tmp_path, [None, None]) as (cluster, links):
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        before = links[0].returned_bytes
        with ThreadPoolExecutor(25) as pool:
            answers = pool.map(lambda _: cluster[1].client.get(f"/v2/app/blobs/{digest}").body, range(100))
            assert all(sha256(body) == digest for body in answers)
        assert transfers(cluster[1]) == len(LARGE)
        assert links[0].returned_bytes - before < len(LARGE) + 100_000


def test_parallel_ranges_of_a_cold_blob_are_one_transfer(tmp_path):
    with linked_sites(tmp_path, [20e6, None]) as (cluster, _):
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        size = len(LARGE) // 16

        def part(number):
            header = f"bytes={number * size}-{(number + 1) * size - 1}"
            return cluster[1].client.get(f"/v2/app/blobs/{digest}", Range=header).body

        with ThreadPoolExecutor(16) as pool:
            assert b"".join(pool.map(part, range(16))) == LARGE
        assert transfers(cluster[1]) == len(LARGE)


def test_a_cold_blob_is_served_while_it_arrives(tmp_path):
    with linked_sites(tmp_path, [8e6, None]) as (cluster, _):
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        begun = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", cluster[1].port)
        connection.request("GET", f"/v2/app/blobs/{digest}")
        response = connection.getresponse()
        first = response.read(1000)
        first_s = time.monotonic() - begun
        assert first + response.read() == LARGE
        assert first_s < (time.monotonic() - begun) / 4


def test_a_client_that_leaves_does_not_end_it_for_the_others(tmp_path):
    with linked_sites(tmp_path, [8e6, None]) as (cluster, _), ThreadPoolExecutor() as pool:
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        leaving = http.client.HTTPConnection("127.0.0.1", cluster[1].port)
        leaving.request("GET", f"/v2/app/blobs/{digest}")
        leaving.getresponse().read(1000)
        staying = pool.submit(cluster[1].client.get, f"/v2/app/blobs/{digest}")
        wait_until(lambda: b"concord_requests_in_flight 3.0" in cluster[1].client.get("/metrics").body)
        leaving.close()
        assert staying.result(30).body == LARGE
        assert transfers(cluster[1]) == len(LARGE)


def test_a_transfer_goes_on_from_another_holder_where_the_first_one_broke_off(tmp_path):
    with linked_sites(tmp_path, [8e6, 8e6, None]) as (cluster, links), ThreadPoolExecutor() as pool:
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster[1].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        before = [link.returned_bytes for link in links]
        pull = pool.submit(cluster[2].client.get, f"/v2/app/blobs/{digest}")

        def busy():
            moved = [link.returned_bytes - start for link, start in zip(links, before, strict=True)]
            return next((number for number in (0, 1) if moved[number] > 5_000_000), None) is not None and moved

        moved = wait_until(busy)
        links[0 if moved[0] > moved[1] else 1].cut()
        assert pull.result(30).body == LARGE
        assert transfers(cluster[2]) < len(LARGE) + 2_000_000


def test_a_transfer_waits_for_its_only_holder_in_the_middle_of_a_body(tmp_path):
    with linked_sites(tmp_path, [8e6, None]) as (cluster, links), ThreadPoolExecutor() as pool:
        digest = cluster[0].client.push_blob("app", LARGE)
        cluster.wait_agreed()
        before = links[0].returned_bytes
        pull = pool.submit(cluster[1].client.get, f"/v2/app/blobs/{digest}")
        wait_until(lambda: links[0].returned_bytes - before > 5_000_000)
        links[0].cut()
        time.sleep(3)
        links[0].mend()
        assert pull.result(40).body == LARGE


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
def test_wrong_bytes_from_a_peer_are_never_kept_and_never_end_cleanly(tmp_path, content):
    with linked_sites(tmp_path, [None, None], holder_wait_s="1") as (cluster, _):
        digest = cluster[0].client.push_blob("app", content)
        cluster.wait_agreed()
        flip_a_bit(cluster[0], digest)
        try:
            answer = cluster[1].client.get(f"/v2/app/blobs/{digest}")
            assert answer.status == 503, "a small content is checked before anything is sent"
        except http.client.IncompleteRead as broken:
            assert len(broken.partial) < len(content)
        assert not content_path(cluster[1], digest).exists()
        wait_until(lambda: list((cluster[1].data / "fetches").iterdir()) == [])


def test_another_holder_is_used_after_one_that_lies(tmp_path):
    with linked_sites(tmp_path, [None, None, None], holder_wait_s="5") as (cluster, _):
        digest = cluster[0].client.push_blob("app", SMALL)
        cluster[1].client.push_blob("app", SMALL)
        cluster.wait_agreed()
        flip_a_bit(cluster[0], digest)

        def pulled():
            return cluster[2].client.get(f"/v2/app/blobs/{digest}").body == SMALL

        wait_until(pulled, 10)
        wait_until(content_path(cluster[2], digest).exists)
        assert content_path(cluster[2], digest).read_bytes() == SMALL


def test_content_whose_file_was_lost_is_fetched_again(tmp_path):
    with linked_sites(tmp_path, [None, None]) as (cluster, _):
        digest = cluster[0].client.push_blob("app", SMALL)
        cluster[1].client.push_blob("app", SMALL)
        cluster.wait_agreed()
        content_path(cluster[0], digest).unlink()
        assert cluster[0].client.get(f"/v2/app/blobs/{digest}").body == SMALL
        wait_until(content_path(cluster[0], digest).exists)


def test_a_full_mesh_asked_for_the_unknown_asks_each_other_once_at_most(tmp_path):
    """Requests from peers are answered from the local disk, so that questions cannot go round."""
    from tests.support.server import running_cluster

    with running_cluster(tmp_path, ["eu"] * 4) as cluster:
        counts = [count_connections(cluster, server) for server in cluster.servers]
        assert cluster[0].client.get(f"/v2/app/blobs/{sha256(b'unknown')}").status == 404
        assert all(count() <= 3 for count in counts)


def count_connections(cluster, server):
    before = server.status()["peer_requests"]
    return lambda: server.status()["peer_requests"] - before


def test_fetches_of_many_blobs_at_once(tmp_path):
    with linked_sites(tmp_path, [None, None]) as (cluster, _):
        contents = [random.Random(f"many {n}").randbytes(50_000) for n in range(60)]
        digests = [cluster[0].client.push_blob("app", content) for content in contents]
        cluster.wait_agreed()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda d: cluster[1].client.get(f"/v2/app/blobs/{d}").body, digests))
        assert answers == contents

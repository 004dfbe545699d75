"""An upload begun at one instance goes on at any other."""

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.proxy import RoundRobin
from tests.support.server import running_cluster, wait_until

CONTENT = random.Random(1).randbytes(2_000_000)


@pytest.mark.parametrize("sites", ["one_site", "three_sites"])
def test_each_request_of_an_upload_at_another_instance(request, repository, sites):
    first, second, third = (server.client for server in request.getfixturevalue(sites).servers)
    location = first.begin_upload(repository)
    location = second.request("PATCH", location, iter([CONTENT[:700_000]])).headers["Location"]
    answer = third.request("PATCH", location, CONTENT[700_000:1_500_000], {"Content-Range": "700000-1499999"})
    assert (answer.status, answer.headers["Range"]) == (202, "0-1499999")
    answer = second.get(answer.headers["Location"])
    assert (answer.status, answer.headers["Range"]) == (204, "0-1499999")
    answer = third.request("PUT", with_digest(answer.headers["Location"], sha256(CONTENT)), CONTENT[1_500_000:])
    assert answer.status == 201
    path = f"/v2/{repository}/blobs/{sha256(CONTENT)}"
    for client in (first, second, third):
        if sites == "three_sites":  # across sites nothing waits
            wait_until(lambda client=client: client.head(path).status == 200)
        assert client.head(path).status == 200
    assert second.get(f"/v2/{repository}/blobs/{sha256(CONTENT)}").body == CONTENT


def test_errors_come_back_from_the_owner(one_site, repository):
    first, second, _ = (server.client for server in one_site.servers)
    location = first.begin_upload(repository)
    location = first.request("PATCH", location, CONTENT[:1000], {"Content-Range": "0-999"}).headers["Location"]
    answer = second.request("PATCH", location, CONTENT[:1000], {"Content-Range": "500-1499"})
    assert (answer.status, answer.code, answer.headers["Range"]) == (416, "BLOB_UPLOAD_INVALID", "0-999")
    answer = second.request("PUT", with_digest(location, sha256(b"wrong")), b"")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert second.delete(location).status == 204
    assert first.get(location).code == second.get(location).code == "BLOB_UPLOAD_UNKNOWN"


def test_a_body_that_breaks_off_on_its_way_through_is_kept_at_the_owner(one_site, repository):
    first, second, _ = (server.client for server in one_site.servers)
    location = first.begin_upload(repository)
    with socket.create_connection((second.host, second.port)) as connection:
        connection.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n".encode())
        before = one_site[0].upload_bytes()
        connection.sendall(CONTENT[:400_000])  # more than is read before any is sent on
        wait_until(lambda: one_site[0].upload_bytes() > before)
    answer = wait_until(lambda: first.get(location).headers["Range"] != "0-0" and first.get(location))
    kept = int(answer.headers["Range"].partition("-")[2]) + 1
    rest = {"Content-Range": f"{kept}-{len(CONTENT) - 1}"}
    assert second.request("PATCH", location, CONTENT[kept:], rest).status == 202
    assert second.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201


def test_pushes_through_a_balancer_that_changes_the_instance_with_every_request(one_site, repository):
    with RoundRobin([server.address for server in one_site.servers]) as balancer:
        for number in range(20):
            image = images.image((repository, number))
            balancer.client.push(repository, "v1", image)
            for _ in range(3):
                assert balancer.client.get(f"/v2/{repository}/manifests/v1").body == image.body
            assert balancer.client.delete(f"/v2/{repository}/manifests/v1").status == 202
            for _ in range(3):
                assert balancer.client.head(f"/v2/{repository}/manifests/v1").status == 404


@pytest.mark.parametrize("words", ["blobs/uploads", "manifests", "tags/list"])
def test_an_upload_to_a_repository_called_by_path_words_goes_on_at_any_instance(one_site, repository, words):
    first, second, third = (server.client for server in one_site.servers)
    name = f"{repository}/{words}"
    location = second.request("PATCH", first.begin_upload(name), CONTENT).headers["Location"]
    assert third.request("PUT", with_digest(location, sha256(CONTENT)), b"").status == 201
    image = images.image(words)
    second.push(name, "uploads", image)
    for client in (first, second, third):
        assert client.get(f"/v2/{name}/blobs/{sha256(CONTENT)}").body == CONTENT
        assert client.pull(name, "uploads") == image.body


def test_an_upload_without_bytes_is_adopted_by_the_first_that_is_asked_when_its_owner_is_gone(tmp_path):
    """It was refused with 503, which podman does not retry, by an instance that could have adopted it (found by a
    rolling restart behind nginx)."""
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        first, second = cluster.servers
        location = first.client.begin_upload("app")
        first.kill()
        answer = second.client.request("PATCH", location, CONTENT)
        assert answer.status == 202, answer
        assert second.client.request("PUT", with_digest(answer.headers["Location"], sha256(CONTENT)), b"").status == 201
        assert second.client.get(f"/v2/app/blobs/{sha256(CONTENT)}").body == CONTENT


def test_a_small_body_is_sent_again_when_the_owner_of_an_upload_dies_as_it_receives_it(tmp_path):
    """It hangs first, so that the body has gone out to it."""
    content = CONTENT[:10_000]
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster, ThreadPoolExecutor() as pool:
        first, second = cluster.servers
        location = first.client.begin_upload("app")
        assert second.client.get(location).status == 204  # the connection between them is there
        first.pause()
        pushing = pool.submit(second.client.request, "PUT", with_digest(location, sha256(content)), content)
        time.sleep(0.3)
        first.kill()
        assert pushing.result(20).status == 201
        assert second.client.get(f"/v2/app/blobs/{sha256(content)}").body == content


@pytest.mark.parametrize("rest", [b"", CONTENT[1000:]], ids=["finished", "with more bytes"])
def test_an_upload_goes_on_elsewhere_while_its_owner_restarts(tmp_path, rest):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster, ThreadPoolExecutor() as pool:
        first, second = cluster.servers
        location = first.client.request("PATCH", first.client.begin_upload("app"), CONTENT[:1000]).headers["Location"]
        first.kill()
        path = with_digest(location, sha256(CONTENT[:1000] + rest))
        going_on = pool.submit(second.client.request, "PUT", path, rest)
        first.start()
        assert going_on.result(20).status == 201


def test_an_upload_with_bytes_is_503_while_its_owner_may_come_back_and_then_unknown(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        first, second = cluster.servers
        location = first.client.request("PATCH", first.client.begin_upload("app"), CONTENT[:1000]).headers["Location"]
        first.kill()
        answer = second.client.request("PATCH", location, CONTENT[1000:])
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "BLOB_UPLOAD_UNKNOWN", "2")
        gone = wait_until(lambda: (a := second.client.get(location)).status == 404 and a, 20)
        assert gone.code == "BLOB_UPLOAD_UNKNOWN"
        first.start()
        answer = wait_until(lambda: (a := second.client.get(location)).status == 204 and a)
        assert answer.headers["Range"] == "0-999"

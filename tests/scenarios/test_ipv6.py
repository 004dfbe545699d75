"""IPv6: clusters whose addresses are in brackets, and one socket for both families."""

import socket

import pytest

from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.support import images
from tests.support.client import Client
from tests.support.needs import need
from tests.support.server import Cluster, Redis, Server, free_port, wait_until


@pytest.fixture(autouse=True)
def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        need(False, "this machine has no IPv6")


class SixCluster(Cluster):
    """Instances on [::1], and a Redis there."""

    def __init__(self, directory, sites, with_redis):
        self.directory = directory
        self.redis = Redis(directory, "::1") if with_redis else None
        redis = [f"redis://[::1]:{self.redis.port}"] if self.redis else []
        ports = [free_port() for _ in sites]
        peers = [] if with_redis else [f"http://[::1]:{port}" for port in ports]
        self.servers = [
            Server(directory / f"{number}", site, redis, peers, port=port, host="[::1]")
            for number, (site, port) in enumerate(zip(sites, ports, strict=True))
        ]


@pytest.mark.parametrize("with_redis", [True, False])
def test_a_cluster_on_ipv6_replicates_and_serves(tmp_path, with_redis):
    cluster = SixCluster(tmp_path, ["eu", "eu", "us"], with_redis)
    try:
        cluster.start()
        image = images.image("six")
        location = cluster[0].client.begin_upload("app")
        assert location.startswith("/v2/app/blobs/uploads/")
        cluster[0].client.push("app", "v1", image)
        assert cluster[1].client.pull("app", "v1") == image.body
        cluster.wait_agreed()
        assert cluster[2].client.pull("app", "v1") == image.body
        addresses = {member["address"] for member in cluster[0].status()["members"]}
        assert addresses == {cluster[1].url, cluster[2].url}
        assert addresses == {f"http://[::1]:{server.port}" for server in cluster.servers[1:]}
        if with_redis:
            assert cluster[0].status()["bus"] == {f"redis://[::1]:{cluster.redis.port}": True}
        shown = concord("status", cluster[0].address)
        assert (shown.returncode, cluster[1].url in shown.stdout) == (0, True), shown
    finally:
        cluster.stop()


def test_an_instance_on_all_addresses_answers_both_families(tmp_path):
    server = Server(tmp_path / "data", host="[::]", log_requests="1")
    try:
        server.start(wait=False)
        for host in ("127.0.0.1", "::1"):
            client = Client(host, server.port)
            wait_until(lambda client=client: answers(client))
        for client in ("127.0.0.1", "::1"):
            wait_until(lambda client=client: server.logged(LogEvent.REQUEST_SERVED, client=client))
    finally:
        server.kill()


def answers(client):
    try:
        return client.get("/v2/").status == 200
    except OSError:
        return False

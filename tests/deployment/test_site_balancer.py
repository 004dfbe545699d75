"""What --advertise-site names, in a real nginx: docs/nginx-site.conf, and the balancer of k8s/components/regions."""

import os
import re

import pytest

from tests.support import images, kustomize, nginx
from tests.support.client import sha256, with_digest
from tests.support.server import Cluster, free_port, running_server, wait_until

SHIPPED = ["nginx-site.conf", "balancer.yaml"]
CONTENT = os.urandom(5_000_000)
PASSED_PATH = "/_concord/peer/session"
OTHER_PATHS = [
    "/_concord/status",
    "/_concord/digest",
    "/metrics",
    "/readyz",
    "/healthz",
    "/v2/",
    "/_concord/peerless",
    "/",
]
ACTS = ["/_concord/gc", "/_concord/forget", "/_concord/leave", "/_concord/scrub"]


def balancer_for(shipped, directory, address, port):
    if shipped == "nginx-site.conf":
        return nginx.for_other_sites(directory, "127.0.0.1", None, [address], port)
    return nginx.for_other_regions(directory, address, port)


@pytest.fixture(scope="module", params=SHIPPED)
def sites(request, tmp_path_factory):
    """An instance at `eu`, which `us` reaches through the balancer alone, and that balancer."""
    directory, port = tmp_path_factory.mktemp("sites"), free_port()
    cluster = Cluster(directory, ["eu", "us"])
    cluster[0].environment["CONCORD_ADVERTISE_SITE"] = f"http://127.0.0.1:{port}"
    with balancer_for(request.param, directory / "nginx", cluster[0].address, port) as balancer:
        balancer.wait_listening()
        try:
            cluster.start()
            yield cluster, balancer
        finally:
            cluster.stop()


def test_an_upload_above_nginx_default_limit_is_forwarded_between_sites(sites, repository):
    cluster, balancer = sites
    eu, us = (server.client for server in cluster.servers)
    location = eu.request("PATCH", eu.begin_upload(repository), CONTENT[:1000]).headers["Location"]
    patched = us.request("PATCH", location, CONTENT[1000:])
    assert patched.status == 202, (patched, balancer.errors)
    assert us.request("PUT", with_digest(patched.headers["Location"], sha256(CONTENT)), b"").status == 201
    wait_until(lambda: us.get(f"/v2/{repository}/blobs/{sha256(CONTENT)}").body == CONTENT)  # sites do not wait


def test_content_and_manifests_come_through_the_balancer(sites, repository):
    cluster, _ = sites
    image = images.image(repository, layer_bytes=2_000_000)
    cluster[0].client.push(repository, "v1", image)
    cluster.wait_agreed()
    assert cluster[1].client.pull(repository, "v1") == image.body


def test_nothing_but_what_instances_ask_each_other_passes(sites):
    _, balancer = sites
    for path in OTHER_PATHS:
        assert balancer.client.get(path).status == 404, path
    for path in ACTS:
        assert balancer.client.request("POST", path, b"{}").status == 404, path
    assert balancer.client.request("POST", PASSED_PATH, b"").status == 403, "an instance has refused it"


def test_the_shipped_file_lets_no_site_in_before_its_range_is_put_in(tmp_path):
    with running_server(tmp_path / "data", clustered=True) as server:
        port = free_port()
        shipped = nginx.for_other_sites(tmp_path / "nginx", "127.0.0.1", None, [server.address], port, "192.0.2.0/24")
        with shipped as balancer:
            balancer.wait_listening()
            answer = balancer.client.request("POST", PASSED_PATH, b"")
            assert answer.status == 403 and b"nginx" in answer.body
            assert not server.status()["peer_requests_refused"]


def test_both_files_have_the_same_rules():
    [configuration] = [one for one in kustomize.build(nginx.REGIONS) if one["kind"] == "ConfigMap"]
    host, region = (
        set(re.findall(r"^ *((?:client|proxy|keepalive)_?\w* [^;]*;|location [^{]*)", text, re.MULTILINE))
        for text in (nginx.SHIPPED_FOR_SITES.read_text(), configuration["data"]["nginx.conf"])
    )
    temporary = {rule for rule in region if "_temp_path" in rule}
    # Behind a service's one address there is nothing that nginx could go on to.
    only_one = {"proxy_next_upstream error timeout;", "proxy_next_upstream_tries 3;"}
    assert host - only_one == region - temporary - {"location = /balancer "}
    assert "client_max_body_size 0;" in host and "location /_concord/peer/ " in host

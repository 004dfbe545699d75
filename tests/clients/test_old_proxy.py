"""Real clients through a proxy that speaks HTTP/1.0 to the instances, as nginx does unless it is told otherwise, and
that claims another scheme, host and port than clients use. Locations are relative and framing fits the version, so
neither matters."""

import contextlib

import pytest

from tests.support import images, nginx
from tests.support.server import free_port, running_cluster, wait_until

TAGS = [f"v{number:03}" for number in range(60)]
OLD = """
upstream instances {{
    {servers}
}}
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    client_body_buffer_size 16m;  # in memory: a chunked body is given on with its length
    proxy_http_version 1.0;
    proxy_set_header Host wrong.example;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Forwarded-Host wrong.example:4443;
    proxy_set_header X-Forwarded-Port 4443;
    proxy_set_header X-Forwarded-For "nonsense, 203.0.113.7";
    proxy_set_header X-Forwarded-Prefix /registry;
    proxy_set_header Forwarded "for=_hidden;proto=https;host=wrong.example";
    location / {{ proxy_pass http://instances; }}
}}
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("site"), ["eu", "eu"], workers="2") as site:
        port = free_port()
        servers = "\n    ".join(f"server {server.address};" for server in site.servers)
        text = OLD.format(servers=servers, port=port)
        with nginx.Server(tmp_path_factory.mktemp("nginx"), "127.0.0.1", port, text) as running:
            wait_until(lambda: answers(running))
            yield running


def answers(proxy):
    with contextlib.suppress(OSError):
        return proxy.client.get("/v2/").status == 200


def test_clients_push_and_pull_through_it(engine, proxy, repository):
    image = engine.build("old", padding=3_000_000)
    built = engine.image_id(image)
    engine.push(image, f"{proxy.address}/{repository}:v1")
    engine.forget(image)
    assert engine.pull(f"{proxy.address}/{repository}:v1") == built
    if engine.name != "skopeo":
        engine.forget(f"{proxy.address}/{repository}:v1")


def test_lists_come_whole_through_it(proxy, repository):
    image = images.image()
    proxy.client.push(repository, TAGS[0], image)
    path = f"/v2/{repository}/manifests/{image.digest}?" + "&".join(f"tag={tag}" for tag in TAGS)
    answer = proxy.client.request("PUT", path, image.body, {"Content-Type": image.media_type})
    assert answer.status == 201
    assert proxy.client.get(f"/v2/{repository}/tags/list").json()["tags"] == TAGS
    assert repository in proxy.client.get("/v2/_catalog").json()["repositories"]


def test_no_location_or_link_names_another_host(proxy, repository):
    location = proxy.client.begin_upload(repository)
    assert location.startswith(f"/v2/{repository}/blobs/uploads/")
    digest = proxy.client.push_blob(repository, b"x")
    assert digest
    link = proxy.client.get("/v2/_catalog?n=1").headers.get("Link", "</v2/")
    assert link.startswith("</v2/")

"""A site that is being renamed by one restart after the other: for a while instances of two site names stand behind one
shared address (`--advertise-site`), and a request for one of them may arrive at the other."""

import os

import pytest

from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.server import Cluster, wait_until

CONTENT = os.urandom(1_500_000)
SESSION = "/_concord/peer/session"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two instances. The second one has the new name, and its site's address leads to the first one, always: what a
    balancer does with every other request."""
    cluster = Cluster(tmp_path_factory.mktemp("renamed"), ["main", "eu"])
    try:
        cluster[1].environment["CONCORD_ADVERTISE_SITE"] = cluster[0].url
        yield cluster.start()
    finally:
        cluster.stop()


def test_an_upload_is_forwarded_to_its_owner_of_another_site_name(site, repository):
    old, new = (server.client for server in site.servers)
    location = new.request("PATCH", new.begin_upload(repository), CONTENT[:1000]).headers["Location"]
    patched = old.request("PATCH", location, CONTENT[1000:2000])
    assert patched.status == 202, patched
    assert old.request("PUT", with_digest(location, sha256(CONTENT)), CONTENT[2000:]).status == 201
    assert old.get(location).code == "BLOB_UPLOAD_UNKNOWN", "the owner says that it is finished"


def test_content_is_fetched_from_a_holder_of_another_site_name(site, repository):
    old, new = (server.client for server in site.servers)
    image = images.of_layers([CONTENT], repository)
    new.push(repository, "v1", image)
    wait_until(lambda: old.get(f"/v2/{repository}/manifests/v1").status == 200)
    assert old.pull(repository, "v1") == image.body


def test_a_request_is_forwarded_once(site):
    """An instance whose own address leads elsewhere would have requests go round for ever."""
    first, second = site.servers
    for_second = {"Concord-For": second.status()["instance"], "Concord-Cluster": "0" * 16}
    refused = second.status()["peer_requests_refused"].get("unauthentic", 0)
    assert first.client.request("POST", SESSION, b"", for_second).status == 403
    assert second.status()["peer_requests_refused"]["unauthentic"] == refused + 1, "the second one has answered"
    for_second["Concord-Forwarded"] = "1"
    refused = first.status()["peer_requests_refused"].get("unauthentic", 0)
    assert first.client.request("POST", SESSION, b"", for_second).status == 403
    assert first.status()["peer_requests_refused"]["unauthentic"] == refused + 1, "the first one has answered itself"

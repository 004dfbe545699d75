"""Repositories with critical facts of a later version: the others are served, these are not, and every process, list
and report says so; after an upgrade all are."""

import contextlib
import re

import msgspec
import pytest

from crdt.delta import encode_delta
from crdt.fact import fact_hash
from registry.cluster.placement.collection_reasons import Code
from registry.cluster.rpc import messages as m
from registry.telemetry.events import LogEvent
from tests.cli.test_cli import concord
from tests.cluster.test_hostile_peers import Peer
from tests.support import images
from tests.support.client import sha256, with_digest
from tests.support.later import KIND, later_fact
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

IMAGE = images.image("needs upgrade", layers=1, layer_bytes=1000)
LARGE = images.image("needs upgrade, large", layers=1, layer_bytes=300_000)
BLOB, LARGE_BLOB = (sha256(image.blobs[1]) for image in (IMAGE, LARGE))
OTHER = b"a blob that is in the other repository alone"
W = 99
UPGRADED = "tests.support.later:become_later"


class Old:
    """An instance of this version, and a member of a later one."""

    def __init__(self, data, workers):
        self.data, self.workers = data, workers
        self.server = self._server().start()
        self.clocks = {}

    def _server(self, **more):
        return Server(self.data, site="eu", clustered=True, workers=self.workers, **more)

    def later_says(self, document, facts, deleted=()):
        """Have the later member say critical facts, and delete some by their clocks."""
        clock = self.clocks.setdefault(document, 0)
        texts = [later_fact(said, 1, W).text() for said in facts]
        update = encode_delta(W, clock, texts, [(W, at) for at in deleted])
        self.clocks[document] += len(texts) or 1
        peer = Peer(self.server)
        answer = peer.ask(peer.open(), "/updates", m.UpdatesRequest([(document, update)], {}, []))
        assert answer.status == 200
        assert msgspec.msgpack.decode(answer.body)["missing_dependencies"] == []

    def upgrade(self):
        assert self.server.stop() == 0
        self.server = self._server(prepare=UPGRADED).start()

    def close(self):
        self.server.kill()


@pytest.fixture(params=["1", "2"], ids=["one process", "with a worker"])
def old(request, tmp_path):
    with contextlib.closing(Old(tmp_path / "data", request.param)) as made:
        client = made.server.client
        for repository in ("blocked", "other"):
            client.push(repository, "v1", IMAGE)
            client.push(repository, "large", LARGE)
        client.push_blob("blocked", OTHER)
        client.push_blob("other", OTHER + b"!")
        yield made


def requests(repository, upload):
    manifest = f"/v2/{repository}/manifests"
    kind = {"Content-Type": IMAGE.media_type}
    yield from (
        (method, f"{path}", None, {})
        for method in ("GET", "HEAD")
        for path in (
            f"{manifest}/v1",
            f"{manifest}/{IMAGE.digest}",
            f"{manifest}/none",
            f"/v2/{repository}/blobs/{BLOB}",
            f"/v2/{repository}/blobs/{LARGE_BLOB}",
            f"/v2/{repository}/blobs/{sha256(b'none')}",
            f"/v2/{repository}/tags/list",
            f"/v2/{repository}/tags/list?n=5",
            f"/v2/{repository}/referrers/{IMAGE.digest}",
        )
    )
    yield "GET", f"/v2/{repository}/blobs/{LARGE_BLOB}", None, {"Range": "bytes=5-9"}
    yield "GET", f"{manifest}/v1", None, {"If-None-Match": f'"{IMAGE.digest}"'}
    yield "PUT", f"{manifest}/v2", IMAGE.body, kind
    yield "DELETE", f"{manifest}/v1", None, {}
    yield "DELETE", f"{manifest}/{LARGE.digest}", None, {}
    yield "DELETE", f"/v2/{repository}/blobs/{sha256(OTHER)}", None, {}
    yield "POST", f"/v2/{repository}/blobs/uploads/", b"", {}
    yield "POST", f"/v2/{repository}/blobs/uploads/?mount={BLOB}&from=other", b"", {}
    yield "PATCH", upload, b"more", {}
    yield "PUT", with_digest(upload, sha256(b"")), b"", {}
    yield "GET", upload, None, {}
    yield "DELETE", upload, None, {}


def refused(answer, document="repository/blocked", method="GET"):
    if answer.status != 503 or answer.headers["Retry-After"] != "30":
        return False
    if method != "HEAD":
        (error,) = answer.json()["errors"]
        assert error["detail"] == {"reason": "needs-upgrade", "document": document, "kinds": [KIND]}
    return True


def test_everything_of_the_repository_is_refused_and_everything_of_others_is_served(old):
    client = old.server.client
    upload = client.begin_upload("blocked")
    for _ in range(3):  # so that the answers are kept
        assert client.get("/v2/blocked/manifests/v1").status == 200
        assert client.get(f"/v2/blocked/blobs/{BLOB}").status == 200
    digest = client.get("/_concord/digest?repository=blocked").json()["digest"]
    old.later_says("repository/blocked", ["x"])
    for method, path, body, headers in requests("blocked", upload):
        for _ in range(4):  # whichever process takes the connection
            answer = client.request(method, path, body, headers)
            assert refused(answer, method=method), (method, path, answer)
    assert client.get("/_concord/digest?repository=blocked").json()["digest"] != digest, "the fact is in the digest"
    for _ in range(4):
        client.pull("other", "v1")
        assert client.get("/v2/other/tags/list?n=5").json()["tags"] == ["large", "v1"]
    client.push("other", "v2", IMAGE)
    assert client.get("/v2/").status == 200
    old.later_says("repository/blocked", [], deleted=[0])
    for _ in range(4):
        client.pull("blocked", "v1")
        client.pull("blocked", "large")


def test_a_mount_from_the_repository_begins_an_upload(old):
    client = old.server.client
    old.later_says("repository/blocked", ["x"])
    for source in ("&from=blocked", ""):
        mounted = client.request("POST", f"/v2/third/blobs/uploads/?mount={sha256(OTHER)}{source}", b"")
        assert mounted.status == 202
    there = client.request("POST", f"/v2/third/blobs/uploads/?mount={sha256(OTHER + b'!')}", b"")
    assert there.status == 201, "what another repository has is mounted"


def test_an_upload_that_began_before_is_not_finished(old):
    client = old.server.client
    location = client.begin_upload("blocked")
    content = b"begun before"
    location = client.request("PATCH", location, content).headers["Location"]
    old.later_says("repository/blocked", ["x"])
    assert refused(client.request("PUT", with_digest(location, sha256(content)), b""))
    old.later_says("repository/blocked", [], deleted=[0])
    assert client.request("PUT", with_digest(location, sha256(content)), b"").status == 201, "its bytes are kept"


def test_a_list_of_repositories_that_would_name_it_is_refused(old):
    """A client that does not find a repository in a list takes it for deleted."""
    client = old.server.client
    old.later_says("repository/blocked", ["x"])
    for query in ("", "?n=1", "?n=10", "?last=a"):
        assert refused(client.get(f"/v2/_catalog{query}")), query
    for query, names in (("?last=blocked", ["other"]), ("?n=5&last=blocked", ["other"]), ("?n=0", [])):
        assert client.get(f"/v2/_catalog{query}").json()["repositories"] == names


@pytest.mark.parametrize("document", ["access", "policies", "cluster/members", "zebra/x"])
def test_a_document_that_is_no_repository_stops_everything(old, document):
    client = old.server.client
    assert client.get("/v2/other/manifests/v1").status == 200
    old.later_says(document, ["x"])
    paths = ("/v2/", "/v2/_catalog", "/v2/_catalog?n=0", "/v2/other/manifests/v1", f"/v2/other/blobs/{BLOB}")
    for path in (*paths, f"/v2/other/blobs/{LARGE_BLOB}", "/v2/other/tags/list", "/v2/new/manifests/v1"):
        for _ in range(4):
            if path != "/v2/_catalog?n=0":
                assert refused(client.get(path), document), path
    assert client.request("POST", "/v2/other/blobs/uploads/", b"").status == 503
    ready = client.get("/readyz")
    assert ready.status == 503
    assert f"not served before an upgrade: {document} (facts of kind {KIND})" in ready.body.decode()
    assert old.server.logged(LogEvent.DOCUMENT_BLOCKED, document=document)
    old.later_says(document, [], deleted=[0])
    assert client.get("/readyz").status == 200
    client.pull("other", "v1")


def test_readiness_status_metrics_log_and_command_line_name_it(old):
    client = old.server.client
    old.later_says("repository/blocked", ["x"])
    ready = client.get("/readyz")
    assert (ready.status, ready.body.decode().splitlines()) == (
        200,
        ["ready", f"not served before an upgrade: repository/blocked (facts of kind {KIND})"],
    )
    status = old.server.status()
    assert status["not_understood"] == [{"document": "repository/blocked", "kinds": [KIND]}]
    assert status["not_understood_count"] == 1
    figures = client.get("/metrics").body.decode()
    assert "\nconcord_documents_not_understood 1.0\n" in figures
    assert '\nconcord_document_not_understood{document="repository/blocked"} 1.0\n' in figures
    assert refused(client.request("PUT", "/v2/blocked/manifests/v2", IMAGE.body, {"Content-Type": IMAGE.media_type}))
    figures = client.get("/metrics").body.decode()
    counted = re.search(r'^concord_pushes_refused_total\{reason="needs-upgrade"\} (\S+)$', figures, re.M)
    assert float(counted[1]) == 1
    shown = " ".join(concord("status", old.server.url).stdout.split())
    assert f"not served before an upgrade: repository/blocked (facts of kind {KIND})" in shown
    assert old.server.logged(LogEvent.DOCUMENT_BLOCKED, document="repository/blocked")


def test_nothing_is_collected_nor_given_up_while_it_is_not_understood(old):
    client = old.server.client
    old.later_says("repository/blocked", ["x"])
    said = client.request("POST", "/_concord/gc", b'{"untagged_older_than_s": 0}').json()
    assert said["blocked"] == {"reason": Code.DOCUMENT_NOT_UNDERSTOOD, "detail": {"document": "repository/blocked"}}
    assert "blocked" not in said["untagged"]
    peer = Peer(old.server)
    session = peer.open()
    relied = peer.ask(session, "/references", m.ReferenceRequest([sha256(b"x")], 1, 0))
    assert "repository/blocked" in msgspec.msgpack.decode(relied.body)["problem"]


def test_a_link_is_not_given_up_after_a_fact_that_may_name_it(old):
    """The fact arrived between the two questions of the collecting instance."""
    peer, digest = Peer(old.server), sha256(OTHER)
    session = peer.open()

    def released():
        return msgspec.msgpack.decode(peer.ask(session, "/release", m.ReleaseRequest([digest], [links])).body)[
            "released"
        ]

    facts = msgspec.msgpack.decode(peer.ask(session, "/facts", m.FactsRequest("repository/blocked")).body)["facts"]
    links = [fact_hash(text) for _, _, text in facts if digest in text]
    relied = peer.ask(session, "/references", m.ReferenceRequest([digest], 1, 0))
    assert msgspec.msgpack.decode(relied.body)["referenced"] == []
    old.later_says("repository/blocked", ["x"])
    assert released() == []
    old.later_says("repository/blocked", [], deleted=[0])
    assert released() == [digest]


def test_after_an_upgrade_everything_is_served(old):
    old.later_says("repository/blocked", ["x"])
    old.later_says("access", ["y"])
    root = old.server.root()
    old.upgrade()
    client = old.server.client
    assert old.server.root() == root
    assert old.server.status()["not_understood"] == []
    for _ in range(4):
        client.pull("blocked", "v1")
        client.pull("blocked", "large")
    client.push("blocked", "v2", IMAGE)
    assert old.server.logged(LogEvent.FACTS_REREAD, understood=2, facts=2)
    assert old.server.stop() == 0
    old.server = old._server().start(wait=False)
    wait_until(lambda: old.server.logged(LogEvent.START_FAILED, reason="facts-newer"))


def test_facts_that_may_be_ignored_change_nothing(old):
    """As before: facts of unknown kinds without the mark are kept and passed on, and the repository is served."""
    update = encode_delta(98, 0, [f"later\0x\0{1:016x}\0{98:x}"], [])
    peer = Peer(old.server)
    assert peer.ask(peer.open(), "/updates", m.UpdatesRequest([("repository/blocked", update)], {}, [])).status == 200
    old.server.client.pull("blocked", "v1")
    assert old.server.status()["not_understood"] == []

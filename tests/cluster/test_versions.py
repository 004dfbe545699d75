"""Versions beside each other: what every release wrote and said is understood for ever (tests/golden, made by
`python -m tests.support.golden`), and messages may have fields that are unknown here or lack those that came last."""

import contextlib
import json
import shutil
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from crdt.frame import ACKNOWLEDGEMENT, CHANGE, HEARTBEAT, Frame, seal, unseal
from registry.cluster.rpc import messages as m
from registry.cluster.rpc.keys import ClusterKey
from registry.http.peer.procedures import PROCEDURES
from tests.cluster.test_hostile_peers import BEAT, Peer
from tests.support.client import sha256, with_digest
from tests.support.golden import GOLDEN, classes, required
from tests.support.server import KEY, Redis, running_server, wait_until

pytestmark = pytest.mark.slow

RELEASES = sorted(GOLDEN.iterdir())
ANSWERS = {
    "/handshake": (m.Handshake, m.Handshake),
    "/lease": (m.LeaseRequest, m.LeaseResponse),
    "/frames": (m.FramesRequest, m.CommitAcknowledgement),
    "/changes": (m.ChangesRequest, m.ChangesResponse),
    "/summaries": (m.SummariesRequest, m.SummariesResponse),
    "/names": (m.NamesRequest, m.NamesResponse),
    "/fingerprints": (m.FingerprintsRequest, m.FingerprintsResponse),
    "/diffs": (m.DiffsRequest, m.DiffsResponse),
    "/updates": (m.UpdatesRequest, m.UpdatesResponse),
    "/facts": (m.FactsRequest, m.FactsResponse),
    "/locate": (m.LocateRequest, m.LocateResponse),
    "/chunk-digests": (m.ChunkDigestsRequest, m.ChunkDigestsResponse),
    "/bodies": (m.BodiesRequest, m.BodiesResponse),
    "/manifests": (m.ManifestsRequest, m.ManifestsResponse),
    "/replicate-manifest": (m.ReplicateManifestRequest, m.ReplicateManifestResponse),
    "/replicate-blob": (m.ReplicateBlobRequest, m.ReplicateBlobResponse),
    "/references": (m.ReferenceRequest, m.ReferenceResponse),
    "/release": (m.ReleaseRequest, m.ReleaseResponse),
    "/reach": (m.ReachRequest, m.ReachResponse),
    "/replication": (m.ReplicationRequest, m.ReplicationResponse),
}
"""Question and answer, by path."""
WAITING = {"/replicate-manifest", "/replicate-blob"}
"""Questions whose answer waits for content that is nowhere here."""


@pytest.fixture(scope="module", params=RELEASES, ids=lambda path: path.name)
def release(request) -> Path:
    return request.param


@pytest.fixture(scope="module")
def golden(release):
    return json.loads((release / "golden.json").read_text())


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    """An empty instance, and a way to publish to it."""
    import redis

    directory = tmp_path_factory.mktemp("versions")
    with contextlib.ExitStack() as stack:
        server_redis = Redis(directory).start()
        stack.callback(server_redis.kill)
        server = stack.enter_context(running_server(directory / "data", site="eu", redis=[server_redis.url]))
        publishing = stack.enter_context(redis.Redis.from_url(server_redis.url))
        wait_until(lambda: server.status()["frames"].get("echo"))
        yield server, lambda frame: publishing.publish(f"concord:{ClusterKey(KEY).cluster}", frame)


def member(server, instance):
    return next((one for one in server.status()["members"] if one["instance"] == instance), None)


def test_a_data_directory_of_every_release_is_served_whole(release, golden, tmp_path):
    shutil.copytree(release / "data", tmp_path / "data")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("UPDATE uploads SET updated_ms = ?", (int(time.time() * 1000),))  # else it has expired
    with running_server(tmp_path / "data", site="eu", clustered=True) as server:
        client = server.client
        assert server.root() == golden["root"]
        for repository, tags in golden["tags"].items():
            assert client.tags(repository) == tags
            for tag in tags:
                client.pull(repository, tag)
        assert client.get(f"/v2/app/manifests/{golden['gone']}").status == 404
        (signature,) = client.get(f"/v2/app/referrers/{golden['signed']}").json()["manifests"]
        assert client.pull("app", signature["digest"])
        whole = golden["half"].encode() + b", and the other"
        grown = client.request("PATCH", golden["upload"], iter([b", and the other"]))
        assert grown.status == 202, grown
        assert client.request("PUT", with_digest(grown.headers["Location"], sha256(whole)), b"").status == 201
        assert client.get(f"/v2/app/blobs/{sha256(whole)}").body == whole


def test_frames_of_every_release_are_taken_in(golden, bus):
    server, publish = bus
    key = ClusterKey(golden["key"])
    frames = [unseal(bytes.fromhex(frame), [key.frames]) for frame in golden["frames"]]
    assert {frame.kind for frame in frames} == {CHANGE, HEARTBEAT, ACKNOWLEDGEMENT}
    for frame in frames:
        if frame.kind == ACKNOWLEDGEMENT:
            assert msgspec.msgpack.decode(frame.payload, type=m.CommitAcknowledgement).sequences
    for frame in golden["frames"]:
        publish(bytes.fromhex(frame))
    kinds = [frame.kind for frame in frames]
    wait_until(lambda: server.status()["frames"].get("applied", 0) >= kinds.count(CHANGE))
    wait_until(lambda: server.status()["frames"].get("heartbeat", 0) >= kinds.count(HEARTBEAT))
    counted = server.status()["frames"]
    assert not set(counted) & {"malformed", "unauthentic", "refused", "foreign writer", "not stored"}
    tags = golden["tags"] | {"app": [tag for tag in golden["tags"]["app"] if tag != "without-redis"]}
    for repository, listed in tags.items():
        assert server.client.tags(repository) == listed
        for tag in listed:
            assert server.client.get(f"/v2/{repository}/manifests/{tag}").status == 200, "bodies come in frames"
    for sender in {frame.sender.hex() for frame in frames}:
        assert member(server, sender)["version"] == golden["version"]


def test_questions_and_answers_of_every_release_are_understood(golden, bus):
    server, _ = bus
    assert set(ANSWERS) == set(PROCEDURES)
    (hello,) = [entry for entry in golden["exchanges"] if entry["path"] == "/handshake"]
    peer = Peer(server, instance=msgspec.msgpack.decode(bytes.fromhex(hello["question"]))["instance"])
    session = peer.open()
    for entry in golden["exchanges"]:
        question, answer = (bytes.fromhex(entry[what]) for what in ("question", "answer"))
        for raw, message in zip((question, answer), ANSWERS[entry["path"]], strict=True):
            assert msgspec.msgpack.decode(raw, type=message)
        if entry["path"] not in WAITING:
            assert peer.ask(session, entry["path"], question).status == 200, entry["path"]


def test_no_message_needs_a_field_that_a_release_did_not_send(golden):
    """A field that comes later has a default; one that is dropped is no message of the release any more."""
    for name, fields in golden["required"].items():
        assert set(required(classes()[name])) <= set(fields), name


@pytest.mark.parametrize("path", sorted(ANSWERS))
@pytest.mark.parametrize("which", [0, 1], ids=["question", "answer"])
def test_unknown_fields_are_ignored_and_those_with_a_default_may_be_missing(golden, path, which):
    message = ANSWERS[path][which]
    assert not message.__struct_config__.forbid_unknown_fields and not message.__struct_config__.array_like
    for entry in golden["exchanges"]:
        if entry["path"] == path:
            raw = bytes.fromhex(entry[("question", "answer")[which]])
            said = msgspec.msgpack.decode(raw, type=message)
            more = msgspec.msgpack.decode(raw) | {"of_a_later_version": {"nested": [1, b"x", None]}}
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(more), type=message) == said
            fewer = {name: value for name, value in more.items() if name in required(message)}
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(fewer), type=message)


@pytest.mark.parametrize(
    "later", [{}, {"of_a_later_version": {"nested": [1]}, "protocol": 99}], ids=["back", "forward"]
)
def test_heartbeats_and_hellos_of_one_version_back_and_forward_are_heard(bus, later):
    server, publish = bus
    needed = {name: value for name, value in BEAT.items() if name in required(m.Heartbeat)}
    beat = needed | {"version": "9.9.9"} | later
    sender = bytes([40 + len(later)] * 16)
    publish(
        seal(Frame(HEARTBEAT, sender, beat["incarnation"], 1, msgspec.msgpack.encode(beat)), ClusterKey(KEY).frames)
    )
    heard = wait_until(lambda: member(server, sender.hex()))
    assert (heard["version"], heard["live"]) == ("9.9.9", False), "heard, and nobody answers at its address"
    other = bytes([50 + len(later)] * 16).hex()
    hello = {"instance": other, "sequence": 1, "heartbeat": beat, "members": []} | later
    peer = Peer(server, instance=other)
    answer = peer.ask(peer.open(), "/handshake", hello)
    assert answer.status == 200 and msgspec.msgpack.decode(answer.body, type=m.Handshake)
    assert member(server, other)["live"]

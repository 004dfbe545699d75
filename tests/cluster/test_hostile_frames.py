"""Frames on a real Redis, forged, replayed, malformed and oversized, at a real instance."""

import random
import time

import msgspec
import pytest
from blake3 import blake3

from crdt.change import Change, encode_change
from crdt.delta import encode_delta
from crdt.fact import tag_fact
from crdt.frame import CHANGE, HEARTBEAT, MAC_SIZE, MAX_FRAME_BYTES, Frame, seal
from crdt.header import CAPABILITIES, REVISIONS, Field
from crdt.revisions import Revision, encode_revisions
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import Heartbeat
from tests.support.client import sha256
from tests.support.server import KEY, Redis, Server, wait_until

pytestmark = pytest.mark.slow

OURS, THEIRS = ClusterKey(KEY), ClusterKey("another cluster's key")
SENDER, OTHER_SENDER = bytes([7] * 16), bytes([8] * 16)
W = 123456


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """An instance, and a way to publish to it."""
    import redis

    directory = tmp_path_factory.mktemp("frames")
    server_redis = Redis(directory).start()
    server = Server(directory / "data", "eu", [server_redis.url]).start()
    publishing = redis.Redis.from_url(server_redis.url)

    def publish(*frames: bytes) -> None:
        for at in range(0, len(frames), 1000):
            with publishing.pipeline(transaction=False) as pipeline:
                for frame in frames[at : at + 1000]:
                    pipeline.publish(f"concord:{OURS.cluster}", frame)
                pipeline.execute()

    wait_until(lambda: server.status()["frames"].get("echo"))
    yield server, publish
    publishing.close()
    server.kill()
    server_redis.kill()


def fact(tag, writer=W, time=1):
    return tag_fact(tag, sha256(tag.encode()), time, writer).text()


def frame(payload, sequence=1, kind=CHANGE, sender=SENDER, incarnation=1, key=OURS, fields=()):
    return seal(Frame(kind, sender, incarnation, sequence, payload, fields), key.frames)


def change(delta, clock=0, writer=W, needs=None, document="repository/app", bodies=()):
    return encode_change(Change(document, writer, clock, needs or {}, delta, bytes(16), 1, bodies))


def outcome(target, *frames):
    """What became of frames, by what the instance counted; heartbeats of its own aside."""
    server, publish = target
    before, root = server.status()["frames"], server.root()
    publish(*frames)

    def counted():
        after = server.status()["frames"]
        more = {name: count - before.get(name, 0) for name, count in after.items() if name != "echo"}
        more = {name: count for name, count in more.items() if count}
        return more if sum(more.values()) >= len(frames) else None

    return wait_until(counted), server.root() != root


def test_a_genuine_frame_is_applied_once(target):
    genuine = frame(change(encode_delta(W, 0, [fact("v1")], [])))
    assert outcome(target, genuine) == ({"applied": 1}, True)
    assert outcome(target, genuine) == ({"duplicate": 1}, False), "a replay is a no-op"
    assert target[0].client.tags("app") == ["v1"]


def test_forged_frames_and_other_clusters_frames_change_nothing(target):
    genuine = change(encode_delta(W, 1, [fact("v2")], []), clock=1)
    forged = bytearray(frame(genuine, 2))
    forged[-1] ^= 1
    assert outcome(target, bytes(forged)) == ({"unauthentic": 1}, False)
    assert outcome(target, frame(genuine, 2, key=THEIRS)) == ({"unauthentic": 1}, False)


def test_a_hundred_thousand_forged_frames_change_nothing(target):
    server, publish = target
    drawn = random.Random(2)
    genuine = frame(change(encode_delta(W, 1, [fact("v2")], []), clock=1), 2)
    root = server.root()
    before = server.status()["frames"]
    for _ in range(100):
        batch = []
        for _ in range(1000):
            mutant = bytearray(genuine)
            for _ in range(drawn.randrange(1, 4)):
                mutant[drawn.randrange(len(mutant))] = drawn.randrange(256)
            batch.append(bytes(mutant if mutant != genuine else mutant[:-1]))
        publish(*batch)
        time.sleep(0.01)

    def refused():
        after = server.status()["frames"]
        return sum(after.get(k, 0) - before.get(k, 0) for k in ("unauthentic", "malformed")) >= 99_000

    def all_are_counted():
        counted = server.status()["frames"]
        time.sleep(1.0)
        return server.status()["frames"] == counted

    wait_until(refused, 60)
    wait_until(all_are_counted, 60)  # else the rest would count in the next test
    assert server.root() == root
    assert server.client.get("/readyz").status == 200


@pytest.mark.parametrize(
    ("why", "payload", "counted"),
    [
        ("no change at all", b"nonsense", "malformed"),
        ("a delta that is malformed", change(b"\x01\x01\x05\x00\x00\x05\x00"), "malformed"),
        ("a nested value", change(b"\x01\x01\x05\x00\x08\x01\x02w5\x01\x75\x01\x77\x00\x00", writer=5), "malformed"),
        ("another writer's delta", change(encode_delta(W, 1, [fact("v2")], []), clock=1, writer=W + 1), "malformed"),
        ("another clock than its delta's", change(encode_delta(W, 1, [fact("v2")], []), clock=7), "malformed"),
        ("trailing bytes", change(encode_delta(W, 1, [fact("v2")], []), clock=1) + b"x", "malformed"),
        ("a fact in another's name", change(encode_delta(W, 1, [fact("v2", W + 1)], []), clock=1), "malformed"),
    ],
)
def test_authentic_but_malformed_frames_change_nothing(target, why, payload, counted):
    assert outcome(target, frame(payload, random.randrange(1000, 10**9))) == ({counted: 1}, False)


def test_a_frame_with_an_unknown_critical_header_field_changes_nothing_and_is_logged_once(target):
    """A later version says so of frames that are not to be applied where a field of their header is unknown."""
    later = change(encode_delta(77, 0, [fact("v1", 77)], []), writer=77, document="repository/later")
    critical = [frame(later, 1, sender=bytes([77] * 16), fields=(Field(99, b"x", critical=True),)) for _ in range(3)]
    assert outcome(target, *critical) == ({"critical field": 3}, False)
    lines = [line for line in target[0].log.read_text().splitlines() if "critical header field 99" in line]
    assert len(lines) == 1, "one line a minute"
    beat = msgspec.msgpack.encode(Heartbeat("eu", "", "", "9", 1, 0, 0, bytes(16), {}))
    heartbeat = frame(beat, 1, HEARTBEAT, bytes([77] * 16), fields=(Field(98, b"", critical=True),))
    assert outcome(target, heartbeat) == ({"critical field": 1}, False), "of every kind of frame"


def test_a_frame_with_an_unknown_header_field_is_applied_as_if_it_had_none(target):
    later = change(encode_delta(78, 0, [fact("v1", 78)], []), writer=78, document="repository/later")
    fields = (Field(CAPABILITIES, b"\xff" * 40), Field(99, b"of a later version"))
    genuine = frame(later, 1, sender=bytes([78] * 16), fields=fields)
    assert outcome(target, genuine) == ({"applied": 1}, True)
    assert target[0].client.tags("later") == ["v1"]


def test_a_frame_whose_sender_had_seen_other_rights_waits_and_changes_nothing(target):
    """What it waits for never comes here: no member has it."""
    later = change(encode_delta(80, 0, [fact("v1", 80)], []), writer=80, document="repository/ahead")
    ahead = encode_revisions([Revision("access", {81: 5})])
    for value, counted in ((b"nonsense", {"malformed": 1}), (ahead, {"ahead of rights": 1})):
        sent = frame(later, 1, sender=bytes([80] * 16), fields=(Field(REVISIONS, value, critical=True),))
        assert outcome(target, sent) == (counted, False)
    wait_until(lambda: target[0].status()["frames"].get("overdue"))
    assert target[0].client.get("/v2/ahead/tags/list").status == 404


def test_a_frame_with_a_malformed_header_changes_nothing(target):
    later = change(encode_delta(79, 0, [fact("v1", 79)], []), writer=79)
    whole = frame(later, 1, sender=bytes([79] * 16), fields=(Field(1, b"x"),))
    broken = bytearray(whole[:-MAC_SIZE])
    broken[43:45] = b"\x01\x7f"  # a field that is longer than its header
    signed = bytes(broken) + blake3(bytes(broken), key=OURS.frames.secret).digest()
    assert outcome(target, signed) == ({"malformed": 1}, False)


def test_frames_of_impossible_sizes_change_nothing(target):
    frames = [b"", b"x", bytes(MAX_FRAME_BYTES + 1), bytes(8 * 1024 * 1024)]
    assert outcome(target, *frames) == ({"malformed": 4}, False)


def test_a_writer_that_belongs_to_another_instance_is_refused(target):
    def pushed(clock, tag):
        delta = encode_delta(66, clock, [fact(tag, 66)], [])
        return change(delta, clock=clock, writer=66, document="repository/owned")

    assert outcome(target, frame(pushed(0, "v1"), 5)) == ({"applied": 1}, True)
    assert outcome(target, frame(pushed(1, "v2"), 6, sender=OTHER_SENDER)) == ({"foreign writer": 1}, False)


def test_a_frame_of_an_unknown_kind_is_ignored(target):
    assert outcome(target, frame(b"from a newer version", kind=200)) == ({"unknown kind": 1}, False)


def test_a_frame_of_another_version_is_refused(target):
    newer = bytearray(frame(b""))
    newer[0] = 99
    assert outcome(target, bytes(newer)) == ({"malformed": 1}, False)


def test_a_change_before_which_something_is_missing_is_held_and_then_due_for_a_diff(target):
    early = frame(change(encode_delta(77, 5, [fact("v9", 77)], []), clock=5, writer=77), 50)
    server, _ = target
    before = server.status()["frames"].get("overdue", 0)
    assert outcome(target, early)[1] is False
    wait_until(lambda: server.status()["frames"].get("overdue", 0) == before + 1)


def test_an_early_change_is_applied_once_what_was_missing_comes(target):
    first = frame(change(encode_delta(88, 0, [fact("w0", 88)], []), writer=88, document="repository/held"), 60)
    second = encode_delta(88, 1, [fact("w1", 88)], [])
    second = frame(change(second, clock=1, writer=88, document="repository/held"), 61)
    server, publish = target
    publish(second, first)
    wait_until(lambda: server.client.tags("held") == ["w0", "w1"])


def test_stale_and_contradictory_heartbeats_are_refused(target):
    def beat(incarnation, **more):
        return msgspec.msgpack.encode(
            Heartbeat("us", "http://127.0.0.1:9", "", "1", incarnation, 0, 0, bytes(16), {}, **more)
        )

    sender = bytes([9] * 16)
    assert outcome(target, frame(beat(5), 10, HEARTBEAT, sender, 5)) == ({"heartbeat": 1}, False)
    for sequence, incarnation in ((10, 5), (9, 5), (99, 4)):
        assert outcome(target, frame(beat(incarnation), sequence, HEARTBEAT, sender, incarnation)) == (
            {"stale": 1},
            False,
        )
    assert outcome(target, frame(beat(7), 1, HEARTBEAT, sender, 6)) == ({"malformed": 1}, False)


def test_documents_of_any_name_are_kept_and_never_interpreted(target):
    for number, document in enumerate(["", "repository/", "repository/../../etc", "x" * 500, "members/1"]):
        writer = 1000 + number
        delta = encode_delta(writer, 0, [fact("v1", writer)], [])
        counted, _ = outcome(target, frame(change(delta, writer=writer, document=document), 100 + number))
        assert counted == {"applied": 1}
    server, _ = target
    assert server.client.get("/v2/_catalog").status == 200
    assert server.client.get("/_concord/status").status == 200


def test_a_change_that_deletes_what_is_not_here_is_held_without_effort(target):
    server, _ = target
    early = frame(change(encode_delta(99, 0, [fact("w1", 99)], [(98, 5)]), writer=99, document="repository/spin"), 70)
    before = server.status()["frames"].get("overdue", 0)
    assert outcome(target, early) == ({"buffered": 1}, False)
    wait_until(lambda: server.status()["frames"].get("overdue", 0) == before + 1)


def test_recorded_changes_of_an_earlier_incarnation_are_stale(target):
    """Each cost a transaction whenever it was sent again."""

    def pushed(clock, incarnation, sequence):
        delta = encode_delta(121, clock, [fact(f"v{clock}", 121)], [])
        payload = change(delta, clock=clock, writer=121, document="repository/earlier")
        return frame(payload, sequence, sender=bytes([10] * 16), incarnation=incarnation)

    beat = msgspec.msgpack.encode(Heartbeat("us", "http://127.0.0.1:9", "", "1", 5, 0, 0, bytes(16), {}))
    assert outcome(target, frame(beat, 1, HEARTBEAT, bytes([10] * 16), 5)) == ({"heartbeat": 1}, False)
    earlier, later = pushed(0, 4, 80), pushed(1, 5, 1)
    assert outcome(target, earlier) == ({"applied": 1}, True)
    assert outcome(target, later) == ({"applied": 1}, True)
    assert outcome(target, earlier, later) == ({"stale": 1, "duplicate": 1}, False)


def test_recorded_changes_of_strangers_cost_few_transactions(target):
    genuine = frame(change(encode_delta(131, 0, [fact("v1", 131)], []), writer=131, document="repository/stranger"), 90)
    assert outcome(target, genuine) == ({"applied": 1}, True)
    counted, changed = outcome(target, *[genuine] * 10_000)
    assert not changed
    assert counted["unknown sender"] > 5000, "of 200 a second"
    assert set(counted) <= {"unknown sender", "duplicate", "heartbeat"}

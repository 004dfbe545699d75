"""Instances that enforce access control, and members that cannot: sessions, frames, and the channel of gossip."""

import contextlib

import msgspec
import pytest

from crdt.change import Change, encode_change
from crdt.delta import encode_delta
from crdt.fact import tag_fact
from crdt.frame import CHANGE, HEARTBEAT, Frame, seal, unseal
from crdt.header import CAPABILITIES, Field
from registry.capabilities import OWN
from registry.cluster.rpc import messages as m
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.sessions import REFUSED, VERSION_REFUSED
from tests.cluster.test_hostile_peers import Peer
from tests.support.access import ADMINISTRATOR, PASSWORD, act, basic, done, make_administrator
from tests.support.client import sha256
from tests.support.server import KEY, Redis, running_server, wait_until

pytestmark = pytest.mark.slow

OURS = ClusterKey(KEY)
OLD = bytes([7] * 16)
ABLE = (Field(CAPABILITIES, OWN.as_bits()),)


class Bus:
    """A client of the Redis that hears and sends what instances do."""

    def __init__(self, redis):
        self._redis = redis
        self._subscription = redis.pubsub(ignore_subscribe_messages=True)
        self._subscription.psubscribe("*")

    def publish(self, frame, key):
        self._redis.publish(f"concord:{key.cluster.hex()}", frame)

    def heard(self, seconds):
        """Return the frames of the cluster that are published within some seconds, by their key."""
        found = {OURS.frames: 0, OURS.enforcing_frames: 0}
        for _ in range(int(seconds * 10)):
            while (message := self._subscription.get_message(timeout=0.1)) is not None:
                for key in found:
                    with contextlib.suppress(Exception):
                        unseal(message["data"], [key])
                        assert message["channel"].startswith(f"concord:{key.cluster.hex()}".encode())
                        found[key] += 1
        return found


def counted(server):
    answer = server.client.request("GET", "/_concord/status", None, basic(ADMINISTRATOR, PASSWORD))
    return answer.json()["frames"]


def pushed(tag):
    fact = tag_fact(tag, sha256(tag.encode()), 1, 77)
    return encode_change(Change("repository/app", 77, 0, {}, encode_delta(77, 0, [fact.text()], []), bytes(16), 1, ()))


def test_members_that_cannot_enforce_are_refused_and_hear_nothing(tmp_path):
    import redis

    with contextlib.ExitStack() as stack:
        server_redis = Redis(tmp_path).start()
        stack.callback(server_redis.kill)
        server = stack.enter_context(running_server(tmp_path / "data", site="eu", redis=[server_redis.url]))
        bus = Bus(stack.enter_context(redis.Redis.from_url(server_redis.url)))
        old = Peer(server, instance=OLD.hex())
        before = old.open()
        beat = m.Heartbeat("us", "http://127.0.0.1:9", "", "0.1.0", 1, 0, 0, bytes(16), {})
        bus.publish(seal(Frame(HEARTBEAT, OLD, 1, 1, msgspec.msgpack.encode(beat)), OURS.frames), OURS.frames)
        wait_until(lambda: [one["instance"] for one in server.status()["members"]] == [OLD.hex()])
        assert old.ask(before, "/changes", m.ChangesRequest(0)).status == 200

        make_administrator(server)
        refused = act(server, "enforce")
        assert refused.status == 409 and OLD.hex()[:8] in refused.body.decode(), "while such a member is there"
        done(server, "enforce", force=True)

        assert old.ask(before, "/changes", m.ChangesRequest(0)).status == 401, "a session from before"
        answer = old.shake_hands(m.SessionRequest(OLD.hex(), bytes(16)))
        assert (answer.status, answer.headers[REFUSED]) == (403, VERSION_REFUSED)
        able = m.SessionRequest("ab" * 16, bytes(16), "1", list(OWN.capabilities))
        assert old.shake_hands(able).status == 200

        bus.publish(seal(Frame(CHANGE, OLD, 1, 1, pushed("old")), OURS.frames), OURS.frames)
        wait_until(lambda: counted(server).get("cannot enforce") == 1)
        bus.publish(seal(Frame(CHANGE, OLD, 1, 2, pushed("new"), ABLE), OURS.frames), OURS.frames)
        wait_until(lambda: counted(server).get("applied") == 1)
        tags = server.client.request("GET", "/v2/app/tags/list", None, basic(ADMINISTRATOR, PASSWORD)).json()["tags"]
        assert tags == ["new"]

        bus.heard(0.5)
        heard = bus.heard(3)
        assert heard[OURS.enforcing_frames] and not heard[OURS.frames], "gossip has moved"

"""Heartbeats that an outsider without the key has recorded on the bus, and publishes again when their sender is
gone."""

import contextlib
import json
import sqlite3
import time

import pytest

from crdt.frame import HEARTBEAT
from registry.catalog.catalog import PATH
from registry.cluster.membership.members import HEARTBEAT_S
from registry.cluster.membership.store import SAVE_SEQUENCE_S
from registry.cluster.rpc.keys import ClusterKey
from tests.support.server import KEY, running_cluster, wait_until

CHANNEL = f"concord:{ClusterKey(KEY).cluster}"


@pytest.fixture
def pair(tmp_path):
    with running_cluster(tmp_path, ["eu", "eu"]) as cluster:
        yield cluster


@contextlib.contextmanager
def publisher(redis):
    import redis as library

    client = library.Redis.from_url(redis.url)
    try:
        yield client
    finally:
        client.close()


def record(client, instance, count):
    """Heartbeats of an instance as they are published."""
    heartbeats = []
    with client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe(CHANNEL)
        until = time.monotonic() + 10 * count
        while len(heartbeats) < count and time.monotonic() < until:
            message = subscription.get_message(timeout=0.5)
            frame = message["data"] if message else b""
            if frame[1:2] == bytes([HEARTBEAT]) and frame[10:26].hex() == instance:
                heartbeats.append(frame)
    return heartbeats


def of(server, instance):
    return next(member for member in server.status()["members"] if member["instance"] == instance)


def forget(server, instance):
    return server.client.request("POST", "/_concord/forget", json.dumps({"instance": instance}).encode()).status


def heartbeats_heard(server):
    return sum(server.status()["frames"].get(outcome, 0) for outcome in ("heartbeat", "stale"))


def test_dead_member_whose_heartbeats_are_replayed_is_not_live_and_can_be_forgotten(pair):
    """Killed at once, the restarted instance has not even saved the numbers of the heartbeats it heard."""
    witness, victim = pair.servers
    gone = victim.status()["instance"]
    with publisher(pair.redis) as client:
        recorded = record(client, gone, 4)
        assert len(recorded) == 4
        victim.kill()
        witness.kill()
        witness.start()
        assert not of(witness, gone)["live"]
        for frame in recorded:
            before = heartbeats_heard(witness)
            client.publish(CHANNEL, frame)
            wait_until(lambda before=before: heartbeats_heard(witness) > before)
            member = of(witness, gone)
            assert not member["live"] and not member["reachable"]
        assert forget(witness, gone) == 200
        client.publish(CHANNEL, recorded[-1])
        time.sleep(0.2)
        assert gone not in [member["instance"] for member in witness.status()["members"]]


def test_live_member_is_proven_at_once_after_a_restart(pair):
    """Not only when something else happens to be asked: its clients' reads depend on it."""
    witness, other = pair.servers
    witness.kill()
    witness.start()
    wait_until(lambda: of(witness, other.status()["instance"])["live"], HEARTBEAT_S)


def test_sequence_numbers_are_on_disk(tmp_path):
    constants = {"registry.cluster.membership.store.SAVE_SEQUENCE_S": 1.0}
    with running_cluster(tmp_path, ["eu", "eu"], constants=constants) as pair:
        witness, victim = pair.servers
        gone = victim.status()["instance"]
        with publisher(pair.redis) as client:
            recorded = record(client, gone, 2)
            number = int.from_bytes(recorded[-1][34:42])

            def saved():
                with contextlib.closing(sqlite3.connect(f"file:{witness.data / PATH}?mode=ro", uri=True)) as catalog:
                    rows = catalog.execute("SELECT sequence FROM members WHERE instance = ?", (gone,)).fetchall()
                return rows[0][0] if rows else 0

            assert SAVE_SEQUENCE_S > 10, "the constant is shortened for this test"
            wait_until(lambda: saved() >= number, 10)
            victim.kill()
            witness.kill()
            witness.start()
            before = witness.status()["frames"].get("stale", 0)
            for frame in recorded:
                client.publish(CHANNEL, frame)
            wait_until(lambda: witness.status()["frames"].get("stale", 0) >= before + len(recorded))

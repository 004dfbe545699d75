"""A Redis that others use, too: access control lists (redis.io/docs, "ACL") keep them off the cluster's channels."""

import asyncio

import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError

from registry.adapters.bus import RedisBus
from registry.telemetry.events import LogEvent
from tests.adapters.test_bus import Listener, anything
from tests.support.logs import recorded
from tests.support.server import Redis

CONCORD = "ACL SETUSER concord on >secret resetkeys resetchannels &concord:* -@all +subscribe +publish"
"""As docs/operate/redis.md gives it."""
TENANT = "ACL SETUSER tenant on >other allkeys resetchannels &app:* +@all -@admin -@dangerous"


@pytest.fixture
def guarded(tmp_path):
    server = Redis(tmp_path).start()
    for line in (CONCORD, TENANT, "ACL SETUSER default resetchannels"):
        assert server.command(*line.split()) == b"+OK\r\n"
    yield server
    server.kill()


def url(server, login):
    return server.url.replace("redis://", f"redis://{login}@")


async def test_bus_works_with_no_rights_but_to_subscribe_and_publish(guarded, caplog):
    one, other = [
        await Listener(RedisBus([url(guarded, "concord:secret")], ["c"], "eu", anything)).ready() for _ in "12"
    ]
    one.bus.publish(b"for all")
    one.bus.publish(b"for the site", "eu")
    await other.until(lambda heard: {b"for all", b"for the site"} <= set(heard))
    assert "NOPERM" not in caplog.text
    for listener in (one, other):
        await listener.close()


@pytest.mark.parametrize("login", ["tenant:other", "default:"])
async def test_others_can_neither_publish_on_the_channels_nor_record_them(guarded, login):
    async with redis.asyncio.Redis.from_url(url(guarded, login) if login != "default:" else guarded.url) as client:
        with pytest.raises(NoPermissionError):
            await client.publish("concord:c", b"x")
        async with client.pubsub() as subscription:
            with pytest.raises(NoPermissionError):
                await subscription.subscribe("concord:c")
                await subscription.get_message(timeout=2)
        async with client.pubsub() as subscription:
            with pytest.raises(NoPermissionError):
                await subscription.psubscribe("*")
                await subscription.get_message(timeout=2)


async def test_bus_that_may_not_use_its_channels_says_so(guarded, caplog):
    bus = RedisBus([url(guarded, "tenant:other")], ["c"], "eu", anything)
    listener = Listener(bus)
    bus.publish(b"x")
    async with asyncio.timeout(10):
        while not all(
            recorded(caplog.records, event, error="NOPERM" if event is LogEvent.BUS_DISCONNECTED else "")
            for event in (LogEvent.BUS_DISCONNECTED, LogEvent.BUS_PUBLISH_REJECTED)
        ):
            await asyncio.sleep(0.05)
    assert not any(bus.servers().values())
    await listener.close()

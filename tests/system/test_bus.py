"""The contract of registry.seams.Bus. Every implementation passes these, on a real Redis where it needs one."""

import asyncio
import itertools
import random
import subprocess

import pytest

from registry.cli.demo import redis_executable
from registry.system.bus import RedisBus
from simulations.life import Life
from simulations.network import RedisServers, SimulatedBus, Weather
from tests.support.server import Redis, free_port, wait_until


@pytest.fixture(params=["real", "simulated"])
async def bus_of(request):
    """Makes buses that go through one server."""
    if request.param == "real":
        redis = request.getfixturevalue("redis")
        yield lambda clusters, site: RedisBus([redis.url], clusters, site)
        return
    servers = RedisServers(Weather(random.Random(1)), ["redis"])
    numbers = itertools.count()
    yield lambda clusters, site: SimulatedBus(servers, Life(f"i{next(numbers)}", 1), clusters, site)


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path).start()
    yield server
    server.kill()


class Listener:
    """Collects what a bus hears."""

    def __init__(self, bus):
        self.bus = bus
        self.heard: list[bytes] = []
        self._task = asyncio.create_task(self._listen())

    async def _listen(self):
        async for frame in self.bus.listen():
            self.heard.append(frame)

    async def until(self, condition, timeout_s=15.0):
        async with asyncio.timeout(timeout_s):
            while not condition(self.heard):
                await asyncio.sleep(0.01)

    async def ready(self):
        """Wait until the subscription stands: publish until it is heard."""
        probe = b"ready %d" % id(self)

        async def publish():
            while True:
                self.bus.publish(probe)
                await asyncio.sleep(0.05)

        publishing = asyncio.create_task(publish())
        await self.until(lambda heard: probe in heard)
        publishing.cancel()
        await asyncio.sleep(0.2)
        self.heard.clear()
        return self

    async def close(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_every_instance_hears_every_frame_its_own_among_them(bus_of):
    listeners = [await Listener(bus_of(["c"], "eu")).ready() for _ in range(3)]
    listeners[0].heard.clear()
    await asyncio.sleep(0.1)
    for listener in listeners:
        listener.heard.clear()
    listeners[1].bus.publish(b"frame \x00\xff")
    for listener in listeners:
        await listener.until(lambda heard: heard == [b"frame \x00\xff"])
        await listener.close()


async def test_a_frame_for_a_site_is_heard_there_alone(bus_of):
    eu, us = [await Listener(bus_of(["c"], site)).ready() for site in ("eu", "us")]
    eu.heard.clear()
    eu.bus.publish(b"for eu", "eu")
    eu.bus.publish(b"for all")
    await us.until(lambda heard: b"for all" in heard)
    await eu.until(lambda heard: b"for eu" in heard)
    assert b"for eu" not in us.heard
    for listener in (eu, us):
        await listener.close()


async def test_clusters_on_one_redis_do_not_hear_each_other(bus_of):
    one, other = [await Listener(bus_of([name], "eu")).ready() for name in ("c1", "c2")]
    one.bus.publish(b"x")
    await one.until(lambda heard: b"x" in heard)
    assert other.heard == []
    for listener in (one, other):
        await listener.close()


async def test_all_keys_are_listened_to_while_they_are_exchanged(bus_of):
    old = await Listener(bus_of(["old", "new"], "eu")).ready()
    new = await Listener(bus_of(["new", "old"], "eu")).ready()
    old.heard.clear()
    old.bus.publish(b"by the old")
    new.bus.publish(b"by the new")
    for listener in (old, new):
        await listener.until(lambda heard: {b"by the old", b"by the new"} <= set(heard))
        await listener.close()


async def test_one_server_that_works_is_enough(redis, tmp_path):
    nowhere = "redis://127.0.0.1:1"
    listener = await Listener(RedisBus([nowhere, redis.url], ["c"], "eu")).ready()
    listener.bus.publish(b"x")
    await listener.until(lambda heard: b"x" in heard)
    await listener.close()


async def test_sentinels_say_where_the_master_is_also_when_that_is_another(redis, tmp_path):
    """A master dies, its replica takes its place, and nobody changes an address."""
    (tmp_path / "replica").mkdir()
    (tmp_path / "sentinel").mkdir()
    replica = Redis(tmp_path / "replica").start()
    replica.command("REPLICAOF", "127.0.0.1", str(redis.port))
    port = free_port()
    settings = [
        f"port {port}",
        f"sentinel monitor main 127.0.0.1 {redis.port} 1",
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 2000",
    ]
    (tmp_path / "sentinel" / "conf").write_text("\n".join(settings))
    command = [redis_executable(), str(tmp_path / "sentinel" / "conf"), "--sentinel"]
    sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        bus = RedisBus([f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/main"], ["c"], "eu")
        assert list(bus.servers()) == [f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/main"]
        listener = await Listener(bus).ready()
        await asyncio.to_thread(wait_until, lambda: b"connected_slaves:1" in redis.command("INFO", "replication"), 20)
        await asyncio.sleep(2)  # Sentinels look at a master's replicas now and then
        redis.kill()
        await asyncio.to_thread(wait_until, lambda: b"role:master" in replica.command("INFO", "replication"), 30)
        await listener.ready()
        await listener.close()
    finally:
        sentinel.kill()
        sentinel.wait()
        replica.kill()


async def test_a_killed_server_is_found_again(redis):
    listener = await Listener(RedisBus([redis.url], ["c"], "eu")).ready()
    redis.kill()
    for number in range(100):
        listener.bus.publish(b"lost %d" % number)
    await asyncio.sleep(1)
    redis.start()
    await listener.ready()
    await listener.close()


async def test_a_server_that_hangs_neither_blocks_nor_goes_unnoticed(redis):
    """A stopped process keeps its connections: only the missing echo tells."""
    bus = RedisBus([redis.url], ["c"], "eu")
    listener = await Listener(bus).ready()
    assert list(bus.servers().values()) == [True]
    redis.pause()
    begun = asyncio.get_running_loop().time()
    for _ in range(10_000):
        bus.publish(b"x" * 1000)
    assert asyncio.get_running_loop().time() - begun < 1
    async with asyncio.timeout(12):
        while list(bus.servers().values()) != [False]:
            await asyncio.sleep(0.05)
    redis.resume()
    await listener.ready()
    await listener.close()

"""The contract of registry.ports.Bus. Every implementation passes these, on a real Redis where it needs one."""

import asyncio
import itertools
import random
import subprocess
import sys
import time

import pytest

from crdt.frame import MAX_FRAME_BYTES
from registry.adapters.bus import READ_BYTES, READING_SHARE, RedisBus, _Server
from registry.cli.demo import redis_executable
from registry.telemetry.events import LogEvent
from simulations.bus import RedisServers, SimulatedBus
from simulations.packet_simulator import PacketSimulator
from simulations.process import Process
from tests.support.logs import recorded
from tests.support.server import Redis, free_port, wait_until

pytestmark = pytest.mark.slow


def anything(message):
    """No message is refused by its first bytes."""
    return None


@pytest.fixture(params=["real", "simulated"])
async def bus_of(request):
    """Makes buses that go through one server."""
    if request.param == "real":
        redis = request.getfixturevalue("redis")
        yield lambda clusters, site: RedisBus([redis.url], clusters, site, anything)
        return
    servers = RedisServers(PacketSimulator(random.Random(1)), ["redis"])
    numbers = itertools.count()
    yield lambda clusters, site: SimulatedBus(servers, Process(f"i{next(numbers)}", 1), clusters, site)


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
    listener = await Listener(RedisBus([nowhere, redis.url], ["c"], "eu", anything)).ready()
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
        bus = RedisBus([f"redis+sentinel://127.0.0.1:1,127.0.0.1:{port}/main"], ["c"], "eu", anything)
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
    listener = await Listener(RedisBus([redis.url], ["c"], "eu", anything)).ready()
    redis.kill()
    for number in range(100):
        listener.bus.publish(b"lost %d" % number)
    await asyncio.sleep(1)
    redis.start()
    await listener.ready()
    await listener.close()


async def test_a_server_that_hangs_neither_blocks_nor_goes_unnoticed(redis):
    """A stopped process keeps its connections: only the missing echo tells."""
    bus = RedisBus([redis.url], ["c"], "eu", anything)
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


async def test_messages_that_are_no_frames_are_counted_and_genuine_ones_come_between_them(redis):
    def refusal(message):
        return None if message.startswith(b"ours") else "unauthentic"

    bus = RedisBus([redis.url], ["c"], "eu", refusal)
    listener = Listener(bus)
    async with asyncio.timeout(15):
        while not all(bus.servers().values()):
            await asyncio.sleep(0.01)
    largest = b"ours" + bytes(MAX_FRAME_BYTES - 4)
    for message in (b"", b"x", largest + b"x", bytes(20 << 20), b"ours 1", b"y", largest, b"ours 2"):
        bus.publish(message)
    await listener.until(lambda heard: b"ours 2" in heard)
    assert listener.heard == [b"ours 1", largest, b"ours 2"]
    assert bus.refused == {"unauthentic": 3, "malformed": 2}
    await listener.close()


async def test_what_nobody_takes_is_bounded_and_the_subscription_is_opened_anew(redis, monkeypatch, caplog):
    """A lag that stays would make every frame late for hours, and heartbeats of the dead come as if they lived."""
    monkeypatch.setattr("registry.adapters.bus.PROBE_TIMEOUT_S", 1.0)
    monkeypatch.setattr("registry.adapters.bus.PROBE_INTERVAL_S", 0.2)
    monkeypatch.setattr("registry.adapters.bus.MAX_RECEIVED_BYTES", 100_000)
    bus = RedisBus([redis.url], ["c"], "eu", anything)
    frames = bus.listen()
    taking = asyncio.ensure_future(anext(frames))
    most_bytes = 0
    for _ in range(40):
        for _ in range(500):
            bus.publish(b"x" * 1000)
        await asyncio.sleep(0.05)
        most_bytes = max(most_bytes, bus._received._bytes)
    await taking
    assert 90_000 < most_bytes < 100_000 + MAX_FRAME_BYTES + READ_BYTES
    async with asyncio.timeout(15):
        while not recorded(caplog.records, LogEvent.BUS_DISCONNECTED):
            await asyncio.sleep(0.01)
            await anext(frames)
    await frames.aclose()


FLOOD = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
batch = b"*3\\r\\n$7\\r\\nPUBLISH\\r\\n$9\\r\\nconcord:c\\r\\n$1\\r\\nx\\r\\n" * 256
while True:
    connection.sendall(batch)
    answered = 0
    while answered < 256:
        answered += connection.recv(65536).count(b"\\r\\n")
"""


@pytest.mark.parametrize("flooded", [1, 2])
async def test_reading_a_flood_takes_its_share_of_the_loop_and_no_more(tmp_path, monkeypatch, flooded):
    """However many servers are flooded. Each read costs more than usual here, so that the flood is more than there is
    time for."""
    spent_s = 0.0

    def slow_select(server, parser, data, select=_Server._select_frames):
        nonlocal spent_s
        begun_s = time.perf_counter()
        frames = select(server, parser, data)
        while time.perf_counter() - begun_s < 0.002:
            pass
        spent_s += time.perf_counter() - begun_s
        return frames

    monkeypatch.setattr(_Server, "_select_frames", slow_select)
    floods = []
    for number in range(flooded):
        (tmp_path / str(number)).mkdir()
    servers = [Redis(tmp_path / str(number)).start() for number in range(flooded)]
    bus = RedisBus([server.url for server in servers], ["c"], "eu", lambda message: "malformed")
    listener = Listener(bus)
    try:
        async with asyncio.timeout(10):
            while not all(bus.servers().values()):
                await asyncio.sleep(0.01)
        floods += [subprocess.Popen([sys.executable, "-c", FLOOD, str(server.port)]) for server in servers]
        async with asyncio.timeout(10):
            while bus.refused["malformed"] < 1000 * flooded:
                await asyncio.sleep(0.01)
        spent_s, begun_s = 0.0, time.perf_counter()
        await asyncio.sleep(2)
        share = spent_s / (time.perf_counter() - begun_s)
    finally:
        for process in floods:
            process.kill()
            process.wait()
        await listener.close()
        for server in servers:
            server.kill()
    assert READING_SHARE * 0.5 < share < READING_SHARE * 1.2


@pytest.mark.parametrize("numbers", [("", "/1"), ("/3", "/4"), ("/1", "/99")])
async def test_addresses_with_different_databases_do_not_hear_each_other(redis, numbers):
    """Pub/sub has no databases, and the server has sixteen: none is selected."""
    one, same, other = [
        await Listener(RedisBus([redis.url + number], ["c"], "eu", anything)).ready()
        for number in (numbers[0], numbers[0], numbers[1])
    ]
    for listener in (one, same, other):
        listener.heard.clear()
    one.bus.publish(b"for my own")
    one.bus.publish(b"for my own site", "eu")
    await same.until(lambda heard: {b"for my own", b"for my own site"} <= set(heard))
    other.bus.publish(b"later")
    await other.until(lambda heard: b"later" in heard)
    assert other.heard == [b"later"]
    for listener in (one, same, other):
        await listener.close()

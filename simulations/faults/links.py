"""What happens to what is sent, over HTTP and on the bus."""

import asyncio
import random

from simulations.faults.stage import BUS_CUT, Fault, Stage


async def partition(stage: Stage, drawn: random.Random) -> None:
    """The network falls apart in two."""
    nodes = [node.name for node in stage.world.nodes]
    places = nodes + (stage.world.redis.names if drawn.random() < 0.5 else [])
    one = {place for place in places if drawn.random() < 0.5}
    pairs = [(a, b) for a in places for b in places if (a in one) != (b in one)]
    await _blocked(stage, drawn, pairs, "partition")


async def one_way_partition(stage: Stage, drawn: random.Random) -> None:
    """Nothing gets from some places to others, while the way back is open."""
    places = [node.name for node in stage.world.nodes] + stage.world.redis.names
    pairs = [(a, b) for a in places for b in places if a != b and drawn.random() < 0.3]
    await _blocked(stage, drawn, pairs, "one-way partition")


async def _blocked(stage: Stage, drawn: random.Random, pairs: list[tuple[str, str]], kind: str) -> None:
    weather = stage.world.weather
    for pair in pairs:
        weather.block(*pair)
    before = weather.fired.get("partition", 0)
    await asyncio.sleep(0.5 + 8 * drawn.random())
    for pair in pairs:
        weather.unblock(*pair)
    if weather.fired.get("partition", 0) > before:
        stage.fired(kind)


def rate(attribute: str, counted: str, highest: float) -> Fault:
    async def strike(stage: Stage, drawn: random.Random) -> None:
        """For a while, something happens to a part of what is sent."""
        weather = stage.world.weather
        setattr(weather, attribute, highest * drawn.random())
        before = weather.fired.get(counted, 0)
        await asyncio.sleep(2 + 6 * drawn.random())
        setattr(weather, attribute, 0.0)
        if weather.fired.get(counted, 0) > before:
            stage.fired(counted)

    return strike


async def slow_place(stage: Stage, drawn: random.Random) -> None:
    """One instance or Redis server answers late."""
    weather = stage.world.weather
    place = drawn.choice([node.name for node in stage.world.nodes] + stage.world.redis.names)
    weather.slow[place] = drawn.choice((0.05, 0.5, 3.0))
    await asyncio.sleep(2 + 5 * drawn.random())
    weather.slow.pop(place, None)
    stage.fired("slow place")


async def stalled_redis(stage: Stage, drawn: random.Random) -> None:
    """One Redis server, or all of them, says nothing for a while."""
    redis = stage.world.redis
    stalled = set(redis.names if drawn.random() < 0.4 else drawn.sample(redis.names, 1))
    redis.stalled |= stalled
    stage.fired("every Redis stalled" if len(stalled) == len(redis.names) else "one Redis of several stalled")
    await asyncio.sleep(1 + 7 * drawn.random())
    redis.stalled -= stalled


async def site_bus_cut(stage: Stage, drawn: random.Random) -> None:
    """The instances of one site, or one of them, neither reach nor hear any Redis server, while requests get through
    and the other sites have their bus."""
    node = drawn.choice(stage.world.nodes)
    near = [other.name for other in stage.world.nodes if other.site == node.site]
    cut = near if drawn.random() < 0.7 else [node.name]
    pairs = [pair for name in cut for server in stage.world.redis.names for pair in ((name, server), (server, name))]
    await _blocked(stage, drawn, pairs, "bus of a site cut")


async def deaf(stage: Stage, drawn: random.Random) -> None:
    """An instance misses acknowledgements and is excluded, while clients go on to read from it: it hears nothing on the
    bus, and is slow to answer requests, by less than leases last."""
    weather, node = stage.world.weather, drawn.choice(stage.world.nodes)
    pairs = [(server, node.name) for server in stage.world.redis.names]
    weather.slow[node.name] = drawn.choice((0.05, 0.1, 0.2))
    await _blocked(stage, drawn, pairs, "deaf instance")
    weather.slow.pop(node.name, None)


async def bus_cut(stage: Stage, drawn: random.Random) -> None:
    """Nobody hears anybody on the bus for a while, and requests get through."""
    redis = stage.world.redis
    await asyncio.sleep(3 * drawn.random())
    redis.stalled |= set(redis.names)
    await asyncio.sleep(4 + 8 * drawn.random())
    redis.stalled.clear()
    stage.fired(BUS_CUT)

"""Faults of links: of HTTP between instances, and of the bus."""

import asyncio
import random

from simulations.faults.target import BUS_CUT, Fault, FaultTarget


async def partition(target: FaultTarget, rng: random.Random) -> None:
    """The network falls apart in two."""
    nodes = [node.name for node in target.cluster.nodes]
    places = nodes + (target.cluster.redis.names if rng.random() < 0.5 else [])
    one = {place for place in places if rng.random() < 0.5}
    pairs = [(a, b) for a in places for b in places if (a in one) != (b in one)]
    await _blocked(target, rng, pairs, "partition")


async def one_way_partition(target: FaultTarget, rng: random.Random) -> None:
    """Nothing gets from some places to others, while the way back is open."""
    places = [node.name for node in target.cluster.nodes] + target.cluster.redis.names
    pairs = [(a, b) for a in places for b in places if a != b and rng.random() < 0.3]
    await _blocked(target, rng, pairs, "one-way partition")


async def _blocked(target: FaultTarget, rng: random.Random, pairs: list[tuple[str, str]], kind: str) -> None:
    packet_simulator = target.cluster.packet_simulator
    for pair in pairs:
        packet_simulator.block(*pair)
    before = packet_simulator.fired.get("partition", 0)
    await asyncio.sleep(0.5 + 8 * rng.random())
    for pair in pairs:
        packet_simulator.unblock(*pair)
    if packet_simulator.fired.get("partition", 0) > before:
        target.disturbances.fired(kind)


def rate(attribute: str, counted: str, highest: float) -> Fault:
    async def strike(target: FaultTarget, rng: random.Random) -> None:
        """For a while, something happens to a part of what is sent."""
        packet_simulator = target.cluster.packet_simulator
        setattr(packet_simulator, attribute, highest * rng.random())
        before = packet_simulator.fired.get(counted, 0)
        await asyncio.sleep(2 + 6 * rng.random())
        setattr(packet_simulator, attribute, 0.0)
        if packet_simulator.fired.get(counted, 0) > before:
            target.disturbances.fired(counted)

    return strike


async def slow_place(target: FaultTarget, rng: random.Random) -> None:
    """One instance or Redis server answers late."""
    packet_simulator = target.cluster.packet_simulator
    place = rng.choice([node.name for node in target.cluster.nodes] + target.cluster.redis.names)
    packet_simulator.slow[place] = rng.choice((0.05, 0.5, 3.0))
    await asyncio.sleep(2 + 5 * rng.random())
    packet_simulator.slow.pop(place, None)
    target.disturbances.fired("slow place")


async def stalled_redis(target: FaultTarget, rng: random.Random) -> None:
    """One Redis server, or all of them, says nothing for a while."""
    redis = target.cluster.redis
    stalled = set(redis.names if rng.random() < 0.4 else rng.sample(redis.names, 1))
    redis.stalled |= stalled
    target.disturbances.fired(
        "every Redis stalled" if len(stalled) == len(redis.names) else "one Redis of several stalled"
    )
    await asyncio.sleep(1 + 7 * rng.random())
    redis.stalled -= stalled


async def site_bus_cut(target: FaultTarget, rng: random.Random) -> None:
    """The instances of one site, or one of them, neither reach nor hear any Redis server, while requests get through
    and the other sites have their bus."""
    node = rng.choice(target.cluster.nodes)
    near = [other.name for other in target.cluster.nodes if other.site == node.site]
    cut = near if rng.random() < 0.7 else [node.name]
    pairs = [pair for name in cut for server in target.cluster.redis.names for pair in ((name, server), (server, name))]
    await _blocked(target, rng, pairs, "bus of a site cut")


async def deaf(target: FaultTarget, rng: random.Random) -> None:
    """An instance misses acknowledgements and is excluded, while clients go on to read from it: it hears nothing on the
    bus, and is slow to answer requests, by less than leases last."""
    packet_simulator, node = target.cluster.packet_simulator, rng.choice(target.cluster.nodes)
    pairs = [(server, node.name) for server in target.cluster.redis.names]
    packet_simulator.slow[node.name] = rng.choice((0.05, 0.1, 0.2))
    await _blocked(target, rng, pairs, "deaf instance")
    packet_simulator.slow.pop(node.name, None)


async def bus_cut(target: FaultTarget, rng: random.Random) -> None:
    """No instance hears another on the bus for a while, and requests get through."""
    redis = target.cluster.redis
    await asyncio.sleep(3 * rng.random())
    redis.stalled |= set(redis.names)
    await asyncio.sleep(4 + 8 * rng.random())
    redis.stalled.clear()
    target.disturbances.fired(BUS_CUT)

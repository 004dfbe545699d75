"""Processes and machines that die, hang, leave and join."""

import asyncio
import random
from collections.abc import Callable

from simulations.faults.target import Fault, FaultTarget, one_of
from simulations.node import Node


async def _die_and_return(target: FaultTarget, node: Node, rng: random.Random, power_cut: bool, kind: str) -> None:
    target.disturbances.fired(kind)
    node.die(power_cut)
    await asyncio.sleep(0.2 + 4 * rng.random())
    await target.lifecycle.restart(node)


async def kill(target: FaultTarget, rng: random.Random) -> None:
    """A process is killed at any moment; its disk keeps what was written."""
    if node := one_of(target, rng):
        await _die_and_return(target, node, rng, False, "kill")


async def power_cut(target: FaultTarget, rng: random.Random) -> None:
    """A machine loses its power at any moment, and with it any part of what was not synced."""
    if node := one_of(target, rng):
        await _die_and_return(target, node, rng, True, "power cut")


async def power_cut_at_an_answer(target: FaultTarget, rng: random.Random) -> None:
    """The power goes as the answer to a write leaves."""
    await _at_effect(target, rng, target.requests.on_write_answer, "power cut at an answer")


async def power_cut_at_a_frame(target: FaultTarget, rng: random.Random) -> None:
    """The power goes as a frame leaves."""
    await _at_effect(target, rng, target.cluster.on_frame, "power cut at a frame")


async def _at_effect(target: FaultTarget, rng: random.Random, told: list[Callable[..., None]], kind: str) -> None:
    node = one_of(target, rng)
    if node is None:
        return
    struck: asyncio.Future[None] = target.cluster.loop.create_future()

    def strike(at: Node, *_: object) -> None:
        if at is node and not struck.done():
            node.die(True)
            struck.set_result(None)

    told.append(strike)
    try:
        await asyncio.wait([struck], timeout=8)
    finally:
        told.remove(strike)
    if struck.done():
        target.disturbances.fired(kind)
        await asyncio.sleep(0.2 + 3 * rng.random())
        await target.lifecycle.restart(node)


def at_call(power_cut: bool, kind: str) -> Fault:
    async def die_at_a_call(target: FaultTarget, rng: random.Random) -> None:
        """An instance dies at the n-th call of its disk."""
        node = one_of(target, rng)
        if node is None:
            return
        if await nth_call(node, rng, lambda: node.die(power_cut)):
            target.disturbances.fired(kind)
            await asyncio.sleep(0.2 + 3 * rng.random())
            await target.lifecycle.restart(node)

    return die_at_a_call


async def nth_call(node: Node, rng: random.Random, strike: Callable[[], None], only: str = "") -> bool:
    """Strike at a drawn call of an instance's disk. Return whether there was one."""
    left, struck = rng.randint(1, 60 if not only else 6), node.cluster.loop.create_future()

    def count(call: str, name: str) -> None:
        nonlocal left
        if only and call != only:
            return
        left -= 1
        if left == 0 and not struck.done():
            node.on_disk_call = lambda call, name: None
            struck.set_result(None)
            strike()

    node.on_disk_call = count
    await asyncio.wait([struck], timeout=8)
    if not struck.done():
        node.on_disk_call = lambda call, name: None
    return bool(struck.done())


async def hang(target: FaultTarget, rng: random.Random) -> None:
    """A process stands still for a while: swapped out, stopped, or its machine is."""
    if node := one_of(target, rng):
        target.disturbances.fired("hang")
        node.pause()
        await asyncio.sleep(0.1 + 6 * rng.random())
        node.resume()


async def hang_of_the_primary(target: FaultTarget, rng: random.Random) -> None:
    """The primary stands still, and its worker goes on answering: for a moment, or for longer than leases last."""
    if node := one_of(target, rng):
        target.disturbances.fired("hang of the primary")
        node.pause(primary_alone=True)
        await asyncio.sleep(rng.choice((0.1, 0.6, 2.0, 6.0)) * (0.5 + rng.random()))
        node.resume()


async def hang_in_a_commit(target: FaultTarget, rng: random.Random) -> None:
    """A process stands still between its check and its commit."""
    node = one_of(target, rng)
    if node is not None and await nth_call(node, rng, node.pause, "sqlite sync"):
        target.disturbances.fired("hang in a commit")
        await asyncio.sleep(0.1 + 4 * rng.random())
        node.resume()


async def new_instance(target: FaultTarget, rng: random.Random) -> None:
    """An instance joins in the middle of everything."""
    if len(target.cluster.nodes) < 5:
        node = target.cluster.add_node(rng.choice(target.cluster.nodes).site)
        await target.lifecycle.restart(node)
        target.disturbances.fired("new instance")


async def long_absence(target: FaultTarget, rng: random.Random) -> None:
    """An instance leaves and comes back when much has happened."""
    node = one_of(target, rng)
    if node is None:
        return
    node.die(False)
    await asyncio.sleep(12 + 4 * rng.random())
    await target.lifecycle.restart(node)
    target.disturbances.fired("long absence")

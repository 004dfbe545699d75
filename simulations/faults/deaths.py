"""Processes and machines that die, hang, leave and join."""

import asyncio
import random
from collections.abc import Callable

from simulations.faults.stage import Fault, Stage, one_of
from simulations.world import Node


async def _die_and_return(stage: Stage, node: Node, drawn: random.Random, power_cut: bool, kind: str) -> None:
    stage.fired(kind)
    node.die(power_cut)
    await asyncio.sleep(0.2 + 4 * drawn.random())
    await stage.restart(node)


async def kill(stage: Stage, drawn: random.Random) -> None:
    """A process is killed at any moment; its disk keeps what was written."""
    if node := one_of(stage, drawn):
        await _die_and_return(stage, node, drawn, False, "kill")


async def power_cut(stage: Stage, drawn: random.Random) -> None:
    """A machine loses its power at any moment, and with it any part of what was not synced."""
    if node := one_of(stage, drawn):
        await _die_and_return(stage, node, drawn, True, "power cut")


async def power_cut_at_an_answer(stage: Stage, drawn: random.Random) -> None:
    """The power goes as the answer to a write leaves."""
    await _at_effect(stage, drawn, stage.on_answer, "power cut at an answer")


async def power_cut_at_a_frame(stage: Stage, drawn: random.Random) -> None:
    """The power goes as a frame leaves."""
    await _at_effect(stage, drawn, stage.world.on_frame, "power cut at a frame")


async def _at_effect(stage: Stage, drawn: random.Random, told: list[Callable[..., None]], kind: str) -> None:
    node = one_of(stage, drawn)
    if node is None:
        return
    struck: asyncio.Future[None] = stage.world.loop.create_future()

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
        stage.fired(kind)
        await asyncio.sleep(0.2 + 3 * drawn.random())
        await stage.restart(node)


def at_call(power_cut: bool, kind: str) -> Fault:
    async def die_at_a_call(stage: Stage, drawn: random.Random) -> None:
        """An instance dies at the n-th call of its disk."""
        node = one_of(stage, drawn)
        if node is None:
            return
        if await nth_call(node, drawn, lambda: node.die(power_cut)):
            stage.fired(kind)
            await asyncio.sleep(0.2 + 3 * drawn.random())
            await stage.restart(node)

    return die_at_a_call


async def nth_call(node: Node, drawn: random.Random, strike: Callable[[], None], only: str = "") -> bool:
    """Strike at a drawn call of an instance's disk. Answers whether there was one."""
    left, struck = drawn.randint(1, 60 if not only else 6), node.world.loop.create_future()

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


async def hang(stage: Stage, drawn: random.Random) -> None:
    """A process stands still for a while: swapped out, stopped, or its machine is."""
    if node := one_of(stage, drawn):
        stage.fired("hang")
        node.pause()
        await asyncio.sleep(0.1 + 6 * drawn.random())
        node.resume()


async def hang_of_the_primary(stage: Stage, drawn: random.Random) -> None:
    """The primary stands still, and its worker goes on answering: for a moment, or for longer than leases last."""
    if node := one_of(stage, drawn):
        stage.fired("hang of the primary")
        node.pause(primary_alone=True)
        await asyncio.sleep(drawn.choice((0.1, 0.6, 2.0, 6.0)) * (0.5 + drawn.random()))
        node.resume()


async def hang_in_a_commit(stage: Stage, drawn: random.Random) -> None:
    """A process stands still between its check and its commit."""
    node = one_of(stage, drawn)
    if node is not None and await nth_call(node, drawn, node.pause, "sqlite sync"):
        stage.fired("hang in a commit")
        await asyncio.sleep(0.1 + 4 * drawn.random())
        node.resume()


async def new_instance(stage: Stage, drawn: random.Random) -> None:
    """An instance joins in the middle of everything."""
    if len(stage.world.nodes) < 5:
        node = stage.world.add_node(drawn.choice(stage.world.nodes).site)
        await stage.restart(node)
        stage.fired("new instance")


async def long_absence(stage: Stage, drawn: random.Random) -> None:
    """An instance leaves and comes back when much has happened."""
    node = one_of(stage, drawn)
    if node is None:
        return
    node.die(False)
    await asyncio.sleep(12 + 4 * drawn.random())
    await stage.restart(node)
    stage.fired("long absence")

"""Instances that leave for good, are forgotten and come back, or come up from another one's backup."""

import asyncio
import json
import random

from registry.ports import PeerUnreachable
from simulations.faults.stage import Stage, one_of
from simulations.restored import restored
from simulations.world import Node

PRESUMED_DEAD_S = 7.0
LEAVING_S = 60.0
"""Longer than any other fault lasts, and what it leaves behind takes to heal."""
TRIES = 4


async def leave(stage: Stage, drawn: random.Random) -> None:
    """One instance, or two at once, are told to leave for good. Some are killed before they are gone; those stay. As
    many are not told as are to hold a push before it is answered."""
    living = [] if stage.lost.doubled else stage.living()
    staying = 2 if "two-copies" in stage.conditions else 1
    leavers = drawn.sample(living, min(drawn.choice((1, 1, 2)), max(len(living) - staying, 0)))
    await asyncio.gather(*(leave_one(stage, node, random.Random(drawn.random())) for node in leavers))


async def leave_one(stage: Stage, node: Node, drawn: random.Random) -> None:
    """One instance is told to leave. Some are killed before they are gone."""
    life, begun, is_killed = node.life, stage.world.loop.now, drawn.random() < 0.3
    patience_s = 8 * drawn.random() ** 2 if is_killed else LEAVING_S
    assert life is not None, "it lives"
    while life.alive and not node.started:
        await asyncio.sleep(0.05)
    if not life.alive or node.instance is None:
        return
    cluster = node.instance.cluster
    cluster.on_decommissioned = lambda: _is_gone(stage, node)
    if not await _told(stage, node, "leave", {}) and not cluster.decommission.under_way:
        return  # its answer may be lost, and then it leaves all the same
    stage.fired("leave")
    while life.alive and stage.world.loop.now < begun + patience_s:
        await asyncio.sleep(0.1)
    if life.alive and is_killed:
        stage.fired("killed while leaving")
        node.die(drawn.random() < 0.5)
        await asyncio.sleep(0.2 + 3 * drawn.random())
        await stage.restart(node)
    elif life.alive:
        stage.violate(f"{node.name} was told to leave {LEAVING_S} s ago, and has not")


def _is_gone(stage: Stage, node: Node) -> None:
    stage.left(node)
    stage.fired("left")


async def forgotten(stage: Stage, drawn: random.Random) -> None:
    """An instance dies and is forgotten, and comes back with its directory after all."""
    node = one_of(stage, drawn)
    if node is None or node.instance is None or stage.lost.doubled:
        return
    instance = node.instance.catalog.instance_id
    node.die(drawn.random() < 0.5)
    await asyncio.sleep(PRESUMED_DEAD_S + 2 * drawn.random())
    for _ in range(TRIES):
        others = stage.living()
        if others and await _told(stage, drawn.choice(others), "forget", {"instance": instance}):
            stage.forgotten(node, instance)
            stage.fired("forgotten")
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(5 * drawn.random())
    await stage.restart(node)


async def restored_elsewhere(stage: Stage, drawn: random.Random) -> None:
    """Another instance comes up from an older backup of one that lives on, or is gone with its disk."""
    node = one_of(stage, drawn)
    if node is None or len(stage.world.nodes) >= 5:
        return
    backup = node.backup()
    await asyncio.sleep(1 + 5 * drawn.random())
    is_gone = drawn.random() < 0.5 and node.up and len(stage.living()) > 1
    if is_gone:
        stage.lose(node)
        await asyncio.sleep(drawn.random())
    again = stage.world.add_node(node.site)
    stage.copied(node, again)
    again.image = restored(backup, stage.world.scratch / f"restored-{again.name}", drawn)
    await stage.restart(again)
    stage.fired("restored elsewhere")


async def _told(stage: Stage, node: Node, what: str, question: dict[str, str]) -> bool:
    """Have an operator tell an instance something. Answers whether it has heard, as far as is known."""
    url, body = f"http://{node.name}/_concord/{what}", json.dumps(question).encode()
    try:
        async with asyncio.timeout(5), stage.world.network.request("operator", None, "POST", url, [], body) as answer:
            return answer.status == 200
    except (PeerUnreachable, TimeoutError):
        return False

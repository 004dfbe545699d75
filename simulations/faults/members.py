"""Instances that leave for good, are forgotten and come back, or come up from another one's backup."""

import asyncio
import json
import random

from registry.ports import PeerUnreachable
from simulations.faults.target import FaultTarget, one_of
from simulations.node import Node
from simulations.restored_backup import restore_backup

PRESUMED_DEAD_S = 7.0
LEAVING_S = 60.0
"""Longer than any other fault lasts, and what it leaves behind takes to heal."""
TRIES = 4


async def leave(target: FaultTarget, rng: random.Random) -> None:
    """One instance, or two at once, are told to leave for good. Some are killed before they are gone; those stay. As
    many are not told as are to hold a push before it is answered."""
    living = [] if target.lifecycle.lost.doubled else target.cluster.running()
    staying = 2 if "two-copies" in target.plan.conditions else 1
    leavers = rng.sample(living, min(rng.choice((1, 1, 2)), max(len(living) - staying, 0)))
    await asyncio.gather(*(leave_one(target, node, random.Random(rng.random())) for node in leavers))


async def leave_one(target: FaultTarget, node: Node, rng: random.Random) -> None:
    """One instance is told to leave. Some are killed before they are gone."""
    process, begun, is_killed = node.process, target.cluster.loop.now, rng.random() < 0.3
    patience_s = 8 * rng.random() ** 2 if is_killed else LEAVING_S
    assert process is not None, "it lives"
    while process.alive and not node.started:
        await asyncio.sleep(0.05)
    if not process.alive or node.instance is None:
        return
    cluster = node.instance.cluster
    node.on_left = lambda: _is_gone(target, node)
    if not await _told(target, node, "leave", {}) and not cluster.decommission.under_way:
        return  # its answer may be lost, and then it leaves all the same
    target.disturbances.fired("leave")
    while process.alive and target.cluster.loop.now < begun + patience_s:
        await asyncio.sleep(0.1)
    if process.alive and is_killed:
        target.disturbances.fired("killed while leaving")
        node.die(rng.random() < 0.5)
        await asyncio.sleep(0.2 + 3 * rng.random())
        await target.lifecycle.restart(node)
    elif process.alive:
        target.violations.report(f"{node.name} was told to leave {LEAVING_S} s ago, and has not")


def _is_gone(target: FaultTarget, node: Node) -> None:
    target.lifecycle.decommissioned(node)
    target.disturbances.fired("left")


async def forgotten(target: FaultTarget, rng: random.Random) -> None:
    """An instance dies and is forgotten, and comes back with its directory after all."""
    node = one_of(target, rng)
    if node is None or node.instance is None or target.lifecycle.lost.doubled:
        return
    instance = node.instance.catalog.instance_id
    node.die(rng.random() < 0.5)
    await asyncio.sleep(PRESUMED_DEAD_S + 2 * rng.random())
    for _ in range(TRIES):
        others = target.cluster.running()
        if others and await _told(target, rng.choice(others), "forget", {"instance": instance}):
            target.lifecycle.removed(node, instance)
            target.disturbances.fired("forgotten")
            break
        await asyncio.sleep(0.5)
    await asyncio.sleep(5 * rng.random())
    await target.lifecycle.restart(node)


async def restored_elsewhere(target: FaultTarget, rng: random.Random) -> None:
    """Another instance comes up from an older backup of one that lives on, or is gone with its disk."""
    node = one_of(target, rng)
    if node is None or len(target.cluster.nodes) >= 5:
        return
    backup = node.backup()
    await asyncio.sleep(1 + 5 * rng.random())
    is_gone = rng.random() < 0.5 and node.up and len(target.cluster.running()) > 1
    if is_gone:
        target.lifecycle.destroy(node)
        await asyncio.sleep(rng.random())
    again = target.cluster.add_node(node.site)
    target.lifecycle.expect_clone(node, again)
    again.image = restore_backup(backup, target.cluster.scratch / f"restored-{again.name}", rng)
    await target.lifecycle.restart(again)
    target.disturbances.fired("restored elsewhere")


async def _told(target: FaultTarget, node: Node, what: str, question: dict[str, str]) -> bool:
    """Have an operator send a command to an instance. Return whether it was answered 200."""
    url, body = f"http://{node.name}/_concord/{what}", json.dumps(question).encode()
    try:
        async with asyncio.timeout(5):
            proof = await target.workload.operator.headers(node, "POST", f"/_concord/{what}", body)
            headers = [*proof.items()]
            async with target.cluster.network.request("operator", None, "POST", url, headers, body) as answer:
                return answer.status == 200
    except (PeerUnreachable, TimeoutError):
        return False

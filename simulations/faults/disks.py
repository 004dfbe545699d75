"""Disks that refuse, change bits, are put back, copied or destroyed."""

import asyncio
import errno
import random

from simulations.faults.links import rate
from simulations.faults.stage import Fault, Stage, one_of
from simulations.history import Operation
from simulations.world import Node


def failing(code: int, kind: str) -> Fault:
    async def fail(stage: Stage, drawn: random.Random) -> None:
        """The disk refuses writes, once or for a while; a broken one also reads."""
        node = one_of(stage, drawn)
        if node is None:
            return
        writing = {"append", "create", "sync", "rename", "sync_directory", "sqlite write", "sqlite sync"}
        if code == errno.EIO:
            writing |= {"pread", "open", "truncate"}
        until = stage.world.loop.now + drawn.choice((0.0, 0.5, 2.0))
        rate, failed = drawn.choice((0.2, 1.0)), 0

        def call(name: str, path: str) -> None:
            nonlocal failed
            over = failed > 0 and stage.world.loop.now >= until
            if name in writing and not over and drawn.random() < rate:
                failed += 1
                stage.disturb()
                if name in ("pread", "open"):  # it may be taken for damaged, and nobody else may have it
                    stage.lost.digests.add(f"sha256:{path.rpartition('/')[2]}")
                raise OSError(code, errno.errorcode[code], path)

        node.on_disk_call = call
        await asyncio.sleep(3.0)
        node.on_disk_call = lambda name, path: None
        if failed:
            stage.fired(kind)

    return fail


async def failed_commit_during_sync(stage: Stage, drawn: random.Random) -> None:
    """A commit fails while another instance is being told what this one has."""
    node = one_of(stage, drawn)
    if node is None:
        return
    network, struck = stage.world.network, False

    def fail_once(call: str, name: str) -> None:
        nonlocal struck
        if call == "sqlite sync":
            node.on_disk_call = lambda call, name: None
            struck = True
            raise OSError(errno.EIO, "EIO", name)

    def asked(source: str, target: str, path: str) -> None:
        if target == node.name and path.startswith(("/_concord/peer/diffs", "/_concord/peer/changes")):
            node.on_disk_call = fail_once

    network.on_request.append(asked)
    await asyncio.sleep(6)
    network.on_request.remove(asked)
    node.on_disk_call = lambda call, name: None
    if struck:
        stage.fired("failed commit during sync")


async def flipped_bit(stage: Stage, drawn: random.Random) -> None:
    """A bit of a content file on the disk is another one; and for a while, bits of content between instances."""
    node = one_of(stage, drawn)
    if node is None or node.disk is None:
        return
    names = [name for name in node.disk.content_names() if node.disk.content_size(name)]
    if names:
        name = drawn.choice(names)
        stage.lost.digests.add(f"sha256:{name.rpartition('/')[2]}")
        node.disk.flip_bit(name, drawn.randrange(8 * node.disk.content_size(name)))
        stage.fired("flipped bit")
    await rate("flips", "flipped bit on the way", 1.0)(stage, drawn)


async def restored_backup(stage: Stage, drawn: random.Random) -> None:
    """An instance's disk is put back to what it was a while ago."""
    node = one_of(stage, drawn)
    if node is None:
        return
    backup = node.backup()
    await asyncio.sleep(1 + 5 * drawn.random())
    if not node.up or len(stage.living()) < 2:
        return
    node.die(False)
    stage.put_back(node)
    node.image = backup
    await asyncio.sleep(0.2 + drawn.random())
    await stage.restart(node)
    stage.fired("restored backup")


async def cloned_directory(stage: Stage, drawn: random.Random) -> None:
    """A copy of an instance's directory is started beside it for a while."""
    node = one_of(stage, drawn)
    if node is None:
        return
    stage.lost.doubled = True
    twin = stage.world.add_node(node.site)
    twin.image = node.backup()
    stage.copied(node, twin)
    twin.drawn = random.Random(f"{stage.world.seed} {twin.name} twin")
    await twin.start()
    stage.fired("cloned directory")
    await asyncio.sleep(2 + 5 * drawn.random())
    if twin in stage.world.nodes:  # else another fault has ended it for good meanwhile
        twin.die(False)
        stage.world.nodes.remove(twin)
        stage.world.gone.append(twin)
        stage.put_back(twin)


async def disk_destroyed(stage: Stage, drawn: random.Random) -> None:
    """A machine and its disk are gone as its answer to a push leaves; another one comes in its place. It strikes only
    where pushes are answered when two instances hold them."""
    node = one_of(stage, drawn)
    if node is None or "two-copies" not in stage.conditions:
        return
    struck: asyncio.Future[None] = stage.world.loop.create_future()

    def strike(at: Node, operation: Operation) -> None:
        if at is node and operation.kind == "push" and not struck.done():
            operation.status = 201
            stage.put_back(node)
            node.die(True)
            node.image = ({}, dict(stage.world.template))
            struck.set_result(None)

    stage.on_answer.append(strike)
    await asyncio.wait([struck], timeout=10)
    stage.on_answer.remove(strike)
    if struck.done():
        stage.fired("disk destroyed")
        await asyncio.sleep(0.2 + 3 * drawn.random())
        await stage.restart(node)


async def slow_disk(stage: Stage, drawn: random.Random) -> None:
    """A disk stalls: what is to be written is written late, for a while, and the instance goes on meanwhile."""
    node = one_of(stage, drawn)
    if node is None or node.life is None:
        return
    life = node.life
    life.disk_is_late_s = drawn.choice((0.04, 0.3, 1.5, 3.0))
    stage.fired("slow disk")
    await asyncio.sleep(2 + 6 * drawn.random())
    life.disk_is_late_s = 0.0

"""Disks that refuse, change bits, are put back, copied or destroyed."""

import asyncio
import errno
import random

from simulations.faults.links import rate
from simulations.faults.target import Fault, FaultTarget, one_of
from simulations.history import Operation
from simulations.node import Node


def failing(code: int, kind: str) -> Fault:
    async def fail(target: FaultTarget, rng: random.Random) -> None:
        """The disk refuses writes, once or for a while; a broken one also reads."""
        node = one_of(target, rng)
        if node is None:
            return
        writing = {"append", "create", "sync", "rename", "sync_directory", "sqlite write", "sqlite sync"}
        if code == errno.EIO:
            writing |= {"pread", "open", "truncate"}
        until = target.cluster.loop.now + rng.choice((0.0, 0.5, 2.0))
        rate, failed = rng.choice((0.2, 1.0)), 0

        def call(name: str, path: str) -> None:
            nonlocal failed
            over = failed > 0 and target.cluster.loop.now >= until
            if name in writing and not over and rng.random() < rate:
                failed += 1
                target.disturbances.note()
                if name in ("pread", "open"):  # it may be taken for corrupt, and no other instance may have it
                    target.lifecycle.lost.digests.add(f"sha256:{path.rpartition('/')[2]}")
                raise OSError(code, errno.errorcode[code], path)

        node.on_disk_call = call
        await asyncio.sleep(3.0)
        node.on_disk_call = lambda name, path: None
        if failed:
            target.disturbances.fired(kind)

    return fail


async def failed_commit_during_sync(target: FaultTarget, rng: random.Random) -> None:
    """A commit fails while another instance is being told what this one has."""
    node = one_of(target, rng)
    if node is None:
        return
    network, struck = target.cluster.network, False

    def fail_once(call: str, name: str) -> None:
        nonlocal struck
        if call == "sqlite sync":
            node.on_disk_call = lambda call, name: None
            struck = True
            raise OSError(errno.EIO, "EIO", name)

    def asked(source: str, receiver: str, path: str) -> None:
        if receiver == node.name and path.startswith(("/_concord/peer/diffs", "/_concord/peer/changes")):
            node.on_disk_call = fail_once

    network.on_request.append(asked)
    await asyncio.sleep(6)
    network.on_request.remove(asked)
    node.on_disk_call = lambda call, name: None
    if struck:
        target.disturbances.fired("failed commit during sync")


async def flipped_bit(target: FaultTarget, rng: random.Random) -> None:
    """A bit of a content file on the disk is another one; and for a while, bits of content between instances."""
    node = one_of(target, rng)
    if node is None or node.disk is None:
        return
    names = [name for name in node.disk.content_names() if node.disk.content_size(name)]
    if names:
        name = rng.choice(names)
        target.lifecycle.lost.digests.add(f"sha256:{name.rpartition('/')[2]}")
        node.disk.flip_bit(name, rng.randrange(8 * node.disk.content_size(name)))
        target.disturbances.fired("flipped bit")
    await rate("flips", "flipped bit on the way", 1.0)(target, rng)


async def restored_backup(target: FaultTarget, rng: random.Random) -> None:
    """An instance's disk is put back to what it was a while ago."""
    node = one_of(target, rng)
    if node is None:
        return
    backup = node.backup()
    await asyncio.sleep(1 + 5 * rng.random())
    if not node.up or len(target.cluster.running()) < 2:
        return
    node.die(False)
    target.lifecycle.expect_disk_loss(node)
    node.image = backup
    await asyncio.sleep(0.2 + rng.random())
    await target.lifecycle.restart(node)
    target.disturbances.fired("restored backup")


async def cloned_directory(target: FaultTarget, rng: random.Random) -> None:
    """A copy of an instance's directory is started beside it for a while."""
    node = one_of(target, rng)
    if node is None:
        return
    target.lifecycle.lost.doubled = True
    clone = target.cluster.add_node(node.site)
    clone.image = node.backup()
    target.lifecycle.expect_clone(node, clone)
    clone.rng = random.Random(f"{target.cluster.seed} {clone.name} twin")
    await clone.start()
    target.disturbances.fired("cloned directory")
    await asyncio.sleep(2 + 5 * rng.random())
    if clone in target.cluster.nodes:  # else another fault has ended it for good meanwhile
        clone.die(False)
        target.cluster.nodes.remove(clone)
        target.cluster.gone.append(clone)
        target.lifecycle.expect_disk_loss(clone)


async def disk_destroyed(target: FaultTarget, rng: random.Random) -> None:
    """A machine and its disk are gone as its answer to a push leaves; another one comes in its place. It strikes only
    where pushes are answered when two instances hold them."""
    node = one_of(target, rng)
    if node is None or "two-copies" not in target.plan.conditions:
        return
    struck: asyncio.Future[None] = target.cluster.loop.create_future()

    def strike(at: Node, operation: Operation) -> None:
        if at is node and operation.kind == "push" and not struck.done():
            operation.status = 201
            target.lifecycle.expect_disk_loss(node)
            node.die(True)
            node.image = ({}, dict(target.cluster.template))
            struck.set_result(None)

    target.requests.on_write_answer.append(strike)
    await asyncio.wait([struck], timeout=10)
    target.requests.on_write_answer.remove(strike)
    if struck.done():
        target.disturbances.fired("disk destroyed")
        await asyncio.sleep(0.2 + 3 * rng.random())
        await target.lifecycle.restart(node)


async def slow_disk(target: FaultTarget, rng: random.Random) -> None:
    """A disk stalls: what is to be written is written late, for a while, and the instance goes on meanwhile."""
    node = one_of(target, rng)
    if node is None or node.process is None:
        return
    process = node.process
    process.disk_is_late_s = rng.choice((0.04, 0.3, 1.5, 3.0))
    target.disturbances.fired("slow disk")
    await asyncio.sleep(2 + 6 * rng.random())
    process.disk_is_late_s = 0.0

"""Processes of an instance that die or hang alone, and what crosses between them late, or twice."""

import asyncio
import random
from collections.abc import Callable

from simulations.faults.target import Fault, FaultTarget, one_of
from simulations.node import Node
from simulations.process import outside_processes
from simulations.process_links import LinkEnd

STRIKE_WITHIN_S = 8.0


async def _replace_worker(target: FaultTarget, node: Node, rng: random.Random) -> None:
    host = node.host
    await asyncio.sleep(0.02 + rng.random())
    if host is not None and host is node.host:
        node.replace_worker(host)
    target.disturbances.note()


async def kill_worker(target: FaultTarget, rng: random.Random) -> None:
    """A worker is killed at any moment, a few times. The primary goes on, and so do the files."""
    for _ in range(rng.randint(1, 3)):
        node = one_of(target, rng)
        if node is not None and node.worker is not None and node.worker.alive:
            target.disturbances.fired("kill of the worker")
            node.die_worker()
            await _replace_worker(target, node, rng)
        await asyncio.sleep(rng.random())


async def kill_worker_between_sync_and_commit(target: FaultTarget, rng: random.Random) -> None:
    """A worker dies with bytes that it has synced, before or after its commit has left."""
    for _ in range(rng.randint(1, 3)):
        node = one_of(target, rng)
        if node is None or not await _at_commit(node, rng, node.die_worker, of_worker=True):
            continue
        target.disturbances.fired("kill of the worker in a commit")
        await _replace_worker(target, node, rng)


async def kill_primary(target: FaultTarget, rng: random.Random) -> None:
    """A primary is killed at any moment, a few times, and replaced. Its worker goes on."""
    for _ in range(rng.randint(1, 3)):
        if node := one_of(target, rng):
            target.disturbances.fired("kill of the primary")
            node.die_primary()
            await target.lifecycle.replace_primary(node, 0.02 + rng.random())
        await asyncio.sleep(2 * rng.random())


async def kill_primary_in_a_commit(target: FaultTarget, rng: random.Random) -> None:
    """A primary dies as a worker's commit is on its way, or the answer to one is: the worker sends it again."""
    for _ in range(rng.randint(1, 3)):
        node = one_of(target, rng)
        if node is None or not await _at_commit(node, rng, node.die_primary):
            continue
        target.disturbances.fired("kill of the primary in a commit")
        await target.lifecycle.replace_primary(node, 0.02 + rng.random())


async def cut_commit_links(target: FaultTarget, rng: random.Random) -> None:
    """A commit link breaks as a message or an answer is on its way, which is lost: the commit arrives twice."""
    for _ in range(rng.randint(2, 6)):
        node = one_of(target, rng)
        if node is None:
            return

        def cut(at: Node = node) -> None:
            for end in at.links.commit_links():
                end.cut()

        if await _at_commit(node, rng, cut):
            target.disturbances.fired("commit link cut")


async def late_commits(target: FaultTarget, rng: random.Random) -> None:
    """Commits and their answers are late at one instance."""
    if node := one_of(target, rng):
        target.disturbances.fired("late commits")
        links = node.links
        links.late_s = rng.choice((0.1, 0.5, 2.0))
        await asyncio.sleep(1 + 4 * rng.random())
        links.late_s = 0.0


async def hang_of_the_worker(target: FaultTarget, rng: random.Random) -> None:
    """A worker stands still, and its primary goes on."""
    if node := one_of(target, rng):
        target.disturbances.fired("hang of the worker")
        node.pause(worker_alone=True)
        await asyncio.sleep(rng.choice((0.1, 0.6, 2.0, 6.0)) * (0.5 + rng.random()))
        node.resume()


def hang_and_death(worker: bool) -> Fault:
    async def hang_then_die(target: FaultTarget, rng: random.Random) -> None:
        """A worker dies, and is replaced, while its primary stands still with its messages; or the reverse."""
        node = one_of(target, rng)
        if node is None:
            return
        node.pause(primary_alone=worker, worker_alone=not worker)
        await asyncio.sleep(rng.random())
        if worker:
            node.die_worker()
            target.disturbances.fired("kill of the worker beside a primary that hangs")
            await _replace_worker(target, node, rng)
        else:
            node.die_primary()
            target.disturbances.fired("kill of the primary beside a worker that hangs")
            await target.lifecycle.replace_primary(node, 0.02 + rng.random())
        await asyncio.sleep(2 * rng.random())
        node.resume()

    return hang_then_die


async def _at_commit(node: Node, rng: random.Random, strike: Callable[[], None], of_worker: bool = False) -> bool:
    """Strike as a drawn commit leaves, or unless `of_worker` the answer to one. Return whether there was one."""
    loop, links, left = node.cluster.loop, node.links, rng.randint(1, 6)
    struck, after_s = loop.create_future(), rng.choice((0.0, 0.0002, 0.001, 0.01))

    def hit() -> None:
        if not struck.done():
            strike()
            struck.set_result(None)

    def count(end: LinkEnd) -> None:
        nonlocal left
        left -= not of_worker or end.owner is node.worker
        if left == 0:
            outside_processes(lambda: loop.call_later(after_s, hit))

    links.on_frame = count
    await asyncio.wait([struck], timeout=STRIKE_WITHIN_S)
    links.on_frame = lambda end: None
    is_struck = struck.done()
    struck.cancel()
    return bool(is_struck)

"""Pipelines: clients that push a tag at one instance and pull it at once at others of the site, again and again.

Under faults that make an instance lag its site, this is what shows it: other clients rarely read what was just written
at the instance that is struck. A pipeline writes where no process stands still, and reads anywhere, as a balancer that
has not noticed yet sends it.
"""

import asyncio
import itertools
import random
from collections.abc import Callable

from simulations.node import Node
from simulations.workload.client import Client
from simulations.workload.images import BARE

REPOSITORY = "pipeline"
PAUSE_S = 0.15
PULL_PATIENCE_S = 0.3
"""So long a round waits for its pulls. Those at an instance that hangs go on, and are answered when that runs again."""
PULLERS = 4
DELETES = 0.2
"""The share of rounds that delete the tag instead of pushing it."""


class Pipeline:
    """One pipeline, for one tag of one site. `make_client` makes a client of a name."""

    def __init__(self, make_client: Callable[[str], Client], name: str, site: str) -> None:
        self._client = make_client(name)
        self._idle = [make_client(f"{name} puller {number}") for number in range(PULLERS)]
        self._pulls: set[asyncio.Task[None]] = set()
        self._site = site
        self._tag = f"live-{site}"
        self._next = itertools.cycle(BARE)

    async def run_until(self, end_s: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < end_s and (near := self._near()):
            running = [node for node in near if node.process is not None and not node.process.paused]
            await self._write(self._rng.choice(running or near))
            begun = [self._begin_pull(node) for node in self._rng.sample(near, min(len(near), 2)) if self._idle]
            if begun:
                await asyncio.wait(begun, timeout=PULL_PATIENCE_S)
            await asyncio.sleep(PAUSE_S * 2 * self._rng.random())
        await asyncio.gather(*self._pulls)

    @property
    def _rng(self) -> random.Random:
        return self._client.rng

    def _near(self) -> list[Node]:
        return [node for node in self._client.places() if node.site == self._site and node.up]

    def _begin_pull(self, node: Node) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(self._pull(self._idle.pop(), node))
        self._pulls.add(task)
        task.add_done_callback(self._pulls.discard)
        return task

    async def _pull(self, puller: Client, node: Node) -> None:
        await puller.pull_manifest(node, REPOSITORY, self._tag)
        self._idle.append(puller)

    async def _write(self, node: Node) -> None:
        if self._rng.random() < DELETES:
            path = f"/v2/{REPOSITORY}/manifests/{self._tag}"
            await self._client.ask("delete tag", node, "DELETE", path, repository=REPOSITORY, reference=self._tag)
        else:
            await self._client.push(node, REPOSITORY, self._tag, next(self._next))

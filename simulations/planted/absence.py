"""Bugs that leave out what brings instances together again."""

import asyncio
from typing import Any
from unittest.mock import patch

from registry.cluster.bodies import Bodies
from registry.cluster.cluster import Cluster
from registry.http.app import App
from simulations.planted.bug import Bug


async def never(*arguments: Any) -> None:
    await asyncio.Event().wait()


def bodies_not_fetched() -> Bug:
    return patch.object(Bodies, "run", never)


def body_not_deposited() -> Bug:
    async def pretend(self: Bodies, change: Any) -> bool:
        return True

    return patch.object(Bodies, "deposit", pretend)


def nobody_introduced() -> Bug:
    """Who is not heard on the bus is not asked over HTTP."""
    return patch.object(Cluster, "_introduce", never)


def ready_at_once() -> Bug:
    async def hasty(self: Cluster) -> None:
        self._joined = True
        self.answers_clients.set()

    return patch.object(Cluster, "_join", hasty)


def clients_answered_at_once() -> Bug:
    async def hasty(self: App, request: Any) -> None:
        pass

    return patch.object(App, "_wait_to_answer", hasty)


def never_behind() -> Bug:
    return patch.object(Cluster, "_behind", lambda self: False)

"""Bugs that leave out what brings instances together again."""

import asyncio
from typing import Any
from unittest.mock import patch

from registry.cluster.membership.discovery import Discovery
from registry.cluster.membership.join import Join
from registry.cluster.membership.members import Progress
from registry.cluster.replication import anti_entropy
from registry.cluster.replication.heartbeat_reactions import HeartbeatReactions
from registry.cluster.replication.manifest_bodies import ManifestBodies
from registry.http.app import App
from simulations.planted.bug import Bug, together


async def never(*arguments: Any) -> None:
    await asyncio.Event().wait()


def bodies_not_fetched() -> Bug:
    return patch.object(ManifestBodies, "run", never)


def body_not_deposited() -> Bug:
    async def pretend(self: ManifestBodies, change: Any) -> bool:
        return True

    return patch.object(ManifestBodies, "deposit", pretend)


def no_introduction() -> Bug:
    """Who is not heard on the bus is not asked over HTTP."""
    return patch.object(Discovery, "run", never)


def ready_at_once() -> Bug:
    async def hasty(self: Join) -> None:
        self._lifecycle.has_joined = True
        self._lifecycle.answers_clients.set()

    return patch.object(Join, "run", hasty)


def clients_answered_at_once() -> Bug:
    async def hasty(self: App, request: Any) -> None:
        pass

    return patch.object(App, "_await_readiness", hasty)


def never_behind() -> Bug:
    return patch.object(HeartbeatReactions, "lags_site", lambda self: False)


def gaps_not_seen() -> Bug:
    """An instance that has applied a change counts all changes before it as applied."""

    def careless(self: Progress, start: int, sequence: int) -> None:
        if self._enter(start):
            self._contiguous_seq = max(self._contiguous_seq, sequence)

    return together(patch.object(Progress, "note", careless), patch.object(anti_entropy, "ROUND_INTERVAL_S", 30.0))

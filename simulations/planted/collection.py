"""Bugs in copies and collection."""

from collections.abc import Iterable
from functools import partial
from typing import Any
from unittest.mock import patch

from registry.catalog.collection import drop_links
from registry.cluster.placement import garbage_collection as collect
from registry.cluster.placement.garbage_collection import GarbageCollector
from registry.cluster.placement.write_concern import WriteConcern
from simulations.planted.bug import Bug, nothing_async, together


def copies_not_waited_for() -> Bug:
    return patch.object(WriteConcern, "wait", nothing_async)


def no_member_asked() -> Bug:
    """Content is removed where no manifest here names it, whatever others have."""

    async def ask(self: GarbageCollector, digests: Any) -> list[Any]:
        return []

    async def release(self: GarbageCollector, digests: Any) -> set[Any]:
        return set(digests)

    return together(
        patch.object(GarbageCollector, "_ask_all", ask), patch.object(GarbageCollector, "_release_all", release)
    )


def content_leases_ignored() -> Bug:
    return patch.object(GarbageCollector, "is_leased", lambda self, digest: False)


def released_unseen() -> Bug:
    """Members give up whatever they are asked to."""

    async def release(self: GarbageCollector, digests: Iterable[Any]) -> list[Any]:
        given = list(digests)
        dropping = partial(drop_links, documents=self._catalog.documents, digests=given)
        await self._catalog.database.write_in_steps(dropping)
        return given

    return patch.object(GarbageCollector, "release", release)


def grace_ignored() -> Bug:
    once = GarbageCollector.once

    async def hasty(self: GarbageCollector, dry: bool = False) -> Any:
        self._grace_s = 0.0
        return await once(self, dry)

    return patch.object(GarbageCollector, "once", hasty)


def links_after_the_question_ignored() -> Bug:
    """Content that was unreferenced when a member was asked stays so, though it has been linked since."""
    return patch.object(collect, "links_of", lambda source, digest: frozenset())


def told_and_not_linked_again() -> Bug:
    """A client that is told of a blob that others are about to release has a lease, and nothing else."""
    return patch.object(GarbageCollector, "release_pending", lambda self, repository, digest: False)

"""Bugs in making room, leaving, being forgotten and starting from a backup."""

from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from registry.catalog.catalog import Catalog
from registry.catalog.documents import Documents
from registry.cli import backup
from registry.cluster.membership.content_handover import ContentHandover
from registry.cluster.membership.decommission import Decommission
from registry.cluster.membership.members import Members
from registry.cluster.placement.eviction import Evictor
from registry.cluster.rpc.client import PeerClient
from simulations.planted.bug import Bug, nothing, nothing_async, together


def any_holder_believed() -> Bug:
    """An evicting instance relies on lower ranks too, which may rely on it."""

    async def careless(self: Evictor, digest: Any) -> bool:
        repositories = self._repositories(digest)
        if not repositories or self._is_to_hold(repositories, digest):
            return False
        needed = max(1, *(len(self._replicator.designated(repository, digest)) for repository in repositories))
        return await self._count(digest, [one.instance for one in self._members.replica_candidates()], needed) >= needed

    return patch.object(Evictor, "_is_held_by_higher_ones", careless)


def no_holder_asked() -> Bug:
    """A replica candidate is taken for a holder."""

    async def count(self: Evictor, digest: Any, instances: list[str], enough: int) -> int:
        return len(instances)

    return patch.object(Evictor, "_count", count)


def one_holder_is_enough() -> Bug:
    """The policy's number is not looked at."""
    count = Evictor._count

    async def impatient(self: Evictor, digest: Any, instances: list[str], enough: int) -> int:
        return enough * await count(self, digest, instances, 1)

    return patch.object(Evictor, "_count", impatient)


def own_copy_evicted() -> Bug:
    return patch.object(Evictor, "_is_to_hold", lambda self, repositories, digest: False)


def nothing_handed_over() -> Bug:
    return patch.object(ContentHandover, "hand_over_content", nothing_async)


def writes_while_leaving() -> Bug:
    """The last look comes while writes go on."""

    @contextmanager
    def open_to_all(self: Decommission) -> Any:
        yield

    return patch.object(Decommission, "writing", open_to_all)


def leavers_relied_on() -> Bug:
    async def keeps(self: PeerClient, member: Any, digest: Any, timeout_s: float, retain: bool = False) -> bool:
        return await self.held_size(member, digest, timeout_s) is not None

    async def stays(self: PeerClient, member: Any, timeout_s: float) -> bool:
        return True

    return together(patch.object(PeerClient, "keeps", keeps), patch.object(PeerClient, "stays", stays))


def no_member_told() -> Bug:
    """A decommissioned instance relies on its frames alone."""
    return patch.object(ContentHandover, "hand_over_documents", nothing_async)


def old_id_kept() -> Bug:
    """An instance that was forgotten goes on under its id."""
    return patch.object(Catalog, "rename", nothing_async)


def old_writer_kept() -> Bug:
    """It takes another id, and writes under its old writer."""

    def rename(self: Documents, instance: str, writer: int) -> None:
        self._instance = instance

    return patch.object(Documents, "rename", rename)


def forgotten_for_a_moment() -> Bug:
    """A removed member is known again as soon as it is heard."""
    return patch.object(Members, "remove", nothing)


def restored_as_the_same() -> Bug:
    """An instance that is started from a backup takes itself for the one that the backup was made of."""
    return patch.object(backup, "_rename", nothing)


def restored_with_its_writer() -> Bug:
    """It takes another id, and writes on under the writer of the backup."""
    start = Catalog.start

    async def going_on(self: Catalog) -> None:
        await start(self)
        written = "SELECT writer FROM writers ORDER BY instance = ? DESC LIMIT 1"
        known = self.database.row(written, (self.instance_id,))
        if (
            known is not None
            and self.database.row("SELECT 1 FROM writers WHERE instance = ?", (self.instance_id,)) is None
        ):
            self.documents.writer, self.documents._registered = known[0], True

    return patch.object(Catalog, "start", going_on)

"""Removal: members that are gone for good, by a tombstone in the document of the members.

Every instance takes note of new tombstones every two seconds. An instance that finds its own id among them was removed
while it was away: it goes on under a new id with all it has.
"""

from registry.catalog.catalog import Catalog
from registry.catalog.membership import remove_member, removed_members
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.members import Members
from registry.cluster.membership.membership_log import MembershipLog
from registry.cluster.membership.store import MemberStore
from registry.ports import Clock
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")


class Removals:
    """Removes members, and takes note of the removals that any instance has stated."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        members: Members,
        store: MemberStore,
        membership_log: MembershipLog,
        incarnation: Incarnation,
        lifecycle: Lifecycle,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._members = members
        self._store = store
        self._membership_log = membership_log
        self._incarnation = incarnation
        self._lifecycle = lifecycle

    async def remove(self, instance: str) -> None:
        """Remove an instance for good: a member, or this one when it leaves."""
        documents, now_ms = self._catalog.documents, self._clock.now_ms()
        await self._catalog.database.write(lambda tx: remove_member(tx, documents, instance, now_ms))
        await self.take_note()

    async def take_note(self) -> None:
        """Drop members that were removed. An instance that finds itself removed goes on under a new id."""
        removed = removed_members(self._catalog.database)
        gone = removed - self._members.removed
        if gone:
            self._membership_log.removed(gone, self._catalog)
            self._members.remove(gone)
            await self._store.drop(gone)
        if self._catalog.instance_id in removed and not self._lifecycle.is_leaving:
            before = self._catalog.instance_id
            await self._catalog.rename()
            self._members.own_instance = self._catalog.instance_id
            self._incarnation.begin(self._catalog.incarnation)
            message = "instance %(removed)s was forgotten; it goes on as %(instance)s with all it has"
            log.warning(LogEvent.REMOVED_INSTANCE_RENAMED, message, removed=before, instance=self._catalog.instance_id)

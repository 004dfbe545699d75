"""Requests for diffs of documents of which a frame could not bring a change.

For each document one request is under way at the own site, and one at others. The sender of the change is asked first,
and other members where it does not answer; the pause between two attempts grows.
"""

import asyncio
from typing import NamedTuple

from crdt.catchup import Report, exchange_now
from crdt.errors import CrdtError
from registry.catalog.catalog import Catalog
from registry.cluster.membership.members import Members
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.document_advances import DocumentAdvances
from registry.errors import StorageFailed
from registry.ports import PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.sync")

FIRST_RETRY_S = 0.2
MAX_RETRY_S = 5.0
MAX_RETRIES = 8
MAX_DUE = 10_000


class _Due(NamedTuple):
    """A document of which a change has to come by a diff."""

    document: str
    near: bool
    """True when the sender of the change is of the own site."""


class DiffRequests:
    """The requests for diffs of one instance that are under way or due."""

    def __init__(
        self, catalog: Catalog, members: Members, anti_entropy: AntiEntropy, advances: DocumentAdvances
    ) -> None:
        self._catalog = catalog
        self._members = members
        self._anti_entropy = anti_entropy
        self._advances = advances
        self._due: dict[_Due, asyncio.Task[None]] = {}
        self._due_again: dict[_Due, str] = {}
        """Diffs that became due again while they were being requested, each with the instance to ask."""

    @property
    def due(self) -> int:
        """Return how many documents are due for a diff."""
        return len(self._due)

    def close(self) -> None:
        for task in self._due.values():
            task.cancel()

    def request_diff(self, instance: str, document: str) -> None:
        """Request a diff of a document, since a change could not be applied from its frame. One request is under way at
        a time. The own site is asked in parallel to the others, since answers to its clients wait for that."""
        sender = self._members.get(instance)
        due = _Due(document, sender is not None and sender.beat.site == self._members.own_site)
        if due in self._due:
            self._due_again[due] = instance  # the answer that is on its way may have been given before this change
        elif len(self._due) < MAX_DUE:
            task = self._due[due] = asyncio.create_task(self._exchange_document(instance, document))
            task.add_done_callback(lambda task: self._exchanged(due, task))

    def _exchanged(self, due: _Due, task: "asyncio.Task[None]") -> None:
        del self._due[due]
        again = self._due_again.pop(due, None)
        if again is not None and not task.cancelled():
            self.request_diff(again, due.document)

    async def _exchange_document(self, instance: str, document: str) -> None:
        """Exchange one document with the sender of a change, or with other members when the sender does not answer."""
        pause = FIRST_RETRY_S
        for _ in range(MAX_RETRIES):
            sender = self._members.get(instance)
            others = [member for member in self._members.reachable() if member is not sender]
            for member in ([sender] if sender is not None and sender.reachable else []) + others[:2]:
                try:
                    report = await self._anti_entropy.drive(
                        member, exchange_now(self._catalog.replica, [document], Report())
                    )
                    await self._anti_entropy.merge_fork(member, report.forked)
                    self._advances.announce(document, self._catalog.replica.state(document).vector)
                    return
                except (PeerUnreachable, CrdtError, StorageFailed) as error:
                    log.info(
                        LogEvent.DIFF_REQUEST_FAILED,
                        "no diff of %(document)s from %(member)s: %(error)s",
                        document=document,
                        member=member.shown,
                        error=error,
                    )
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_S)

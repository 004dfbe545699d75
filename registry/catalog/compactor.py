"""Compaction: a document's long log is replaced by a snapshot, which makes loading and catching up cheap.

A commit that makes a log long requests it (`change_sink`), and the instance's upkeep does it, since the digest of a
large document takes seconds of processor time.
"""

import asyncio

from crdt.errors import DocumentBroken
from registry.catalog.database import Database
from registry.catalog.replica import DocumentReplica
from registry.errors import StorageFailed
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.instance")


class Compactor:
    """The documents of one instance that are due for a snapshot."""

    def __init__(self, replica: DocumentReplica, database: Database) -> None:
        self._replica = replica
        self._database = database
        self._due: dict[str, None] = {}
        """In the order in which they were requested."""

    def request(self, document: str) -> None:
        """Note that a document is due."""
        self._due[document] = None

    def request_all_due(self) -> None:
        """Note all documents that are due already, at the start."""
        for document in self._replica.large_logs():
            self.request(document)

    async def compact_due(self) -> None:
        """Compact the documents that are due. Raises StorageFailed, after which the rest is due still."""
        while self._due:
            document = next(iter(self._due))
            del self._due[document]
            try:
                await self.compact(document)
            except StorageFailed:
                self.request(document)  # after the others
                raise

    async def compact(self, document: str) -> None:
        """Replace a document's log by a snapshot."""
        compaction = self._replica.read_for_compaction(document)
        if compaction is None:
            return
        try:
            data = await asyncio.get_running_loop().run_in_executor(None, compaction.snapshot)
        except DocumentBroken as error:
            log.error(
                LogEvent.SNAPSHOT_FAILED, "no snapshot of %(document)s: %(error)s", document=document, error=error
            )
            return
        await self._database.write(lambda tx: self._replica.store_snapshot(tx, compaction, data))
        log.debug(
            LogEvent.DOCUMENT_COMPACTED,
            "a snapshot of %(bytes)d bytes replaces the log of %(document)s",
            document=document,
            bytes=len(data),
        )

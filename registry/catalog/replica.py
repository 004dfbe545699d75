"""Reads of replicated documents for other replicas, from committed state only, each answer in one step."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from crdt.audit import Summary, summarize
from crdt.catchup import Changes, State
from crdt.document import Document
from crdt.errors import DocumentBroken
from crdt.fact import fact_hash
from crdt.trie import Prefix, build
from crdt.vector import Vector
from registry.catalog.database import Database, Transaction
from registry.catalog.tries import EMPTY_DIGEST, RootTrie
from registry.units import KIB

SNAPSHOT_AFTER_COUNT = 1000
SNAPSHOT_AFTER_BYTES = 256 * KIB
CHANGES_PER_ANSWER = 1000
LOADED_DOCUMENTS = 8


class Compaction(NamedTuple):
    """A document read in one step, to become its next snapshot."""

    document: int
    digest: bytes
    log_number: int
    parts: list[bytes]

    def snapshot(self) -> bytes:
        """The parts as one update. Raises DocumentBroken where they do not lead to the digest the catalog has."""
        loaded = Document(self.parts)
        if build(fact_hash(text) for text in loaded.texts()).digest != self.digest:
            raise DocumentBroken("the stored updates do not have the document's state digest")
        return loaded.snapshot()


def is_large_log(count: int, size_bytes: int, snapshot_bytes: int) -> bool:
    """Return whether a document is due for a snapshot. A large document is due later, so that the cost of a change
    stays the same."""
    return size_bytes > max(SNAPSHOT_AFTER_BYTES, snapshot_bytes) or count > max(
        SNAPSHOT_AFTER_COUNT, snapshot_bytes // 256
    )


class DocumentReplica:
    """The read side of documents; the registry's `crdt.catchup.Replica`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._root = RootTrie(database)
        self._loaded: OrderedDict[int, tuple[int, Document]] = OrderedDict()

    def root(self) -> bytes:
        """The state digest of all documents."""
        return self._root.node().digest

    def commit_number(self) -> int:
        """The number of the last committed change of any document."""
        row = self._database.row("SELECT seq FROM sqlite_sequence WHERE name = 'log'")
        return row[0] if row else 0

    def summaries(self, places: list[Prefix]) -> list[Summary]:
        return summarize(self._root.node(), places)

    def names(self, keys: Sequence[bytes]) -> list[str]:
        found = (self._database.row("SELECT name FROM documents WHERE key = ?", (key,)) for key in keys)
        return [row[0] for row in found if row is not None]

    def digest(self, name: str) -> bytes:
        row = self._database.row("SELECT digest FROM documents WHERE name = ?", (name,))
        return row[0] if row else EMPTY_DIGEST

    def state(self, document: str) -> State:
        rows = self._database.rows(
            "SELECT d.digest, v.writer, v.clock FROM documents d LEFT JOIN vectors v ON v.document = d.id "
            "WHERE d.name = ?",
            (document,),
        )
        if not rows:
            return State({}, EMPTY_DIGEST)
        return State({writer: clock for _, writer, clock in rows if writer is not None}, rows[0][0])

    def changes(self, since: int) -> Changes:
        """The documents changed after a commit number, a bounded number of them."""
        sql = "SELECT name, changed FROM documents WHERE changed > ? ORDER BY changed LIMIT ?"
        with self._database.one_step():
            rows = self._database.rows(sql, (since, CHANGES_PER_ANSWER))
            more = len(rows) == CHANGES_PER_ANSWER
            log_number = rows[-1][1] if more else max(self.commit_number(), since)
        return Changes([name for name, _ in rows], log_number, more)

    def diff(self, document: str, vector: Vector) -> bytes:
        """Return the update that a replica at `vector` lacks. Raises DocumentBroken when the stored bytes cannot be
        loaded."""
        return self.state_and_diff(document, vector)[1]

    def state_and_diff(self, document: str, vector: Vector) -> tuple[State, bytes]:
        """A document's state, and what a replica at `vector` lacks of it, as of the same commit."""
        with self._database.one_step():
            state = self.state(document)
            row = self._database.row("SELECT id FROM documents WHERE name = ?", (document,))
            loaded = self._load(row[0]) if row else Document()
        return state, loaded.diff(vector)

    def _load(self, document: int) -> Document:
        log_number, loaded = self._loaded.pop(document, (-1, None))
        snapshot = self._database.row("SELECT log_number, data FROM snapshots WHERE document = ?", (document,))
        if loaded is None or (snapshot and snapshot[0] > log_number):
            log_number, data = snapshot or (0, b"")
            loaded = Document([data] if data else [])
        sql = "SELECT number, delta FROM log WHERE document = ? AND number > ? ORDER BY number"
        for number, delta in self._database.rows(sql, (document, log_number)):
            loaded.apply(delta)
            log_number = number
        self._loaded[document] = (log_number, loaded)
        while len(self._loaded) > LOADED_DOCUMENTS:
            self._loaded.popitem(last=False)
        return loaded

    def large_logs(self) -> list[str]:
        """Documents that are due for a snapshot."""
        sql = (
            "SELECT name, logged_count, logged_bytes, snapshot_bytes FROM documents "
            "WHERE logged_count > ? OR logged_bytes > ?"
        )
        rows = self._database.rows(sql, (SNAPSHOT_AFTER_COUNT, SNAPSHOT_AFTER_BYTES))
        return [name for name, *sizes in rows if is_large_log(*sizes)]

    def read_for_compaction(self, name: str) -> Compaction | None:
        """A document's bytes as of now, or None where it has no log."""
        with self._database.one_step():
            row = self._database.row("SELECT id, digest FROM documents WHERE name = ?", (name,))
            if row is None:
                return None
            snapshot = self._database.row("SELECT data FROM snapshots WHERE document = ?", row[:1])
            log = self._database.rows("SELECT number, delta FROM log WHERE document = ? ORDER BY number", row[:1])
        if not log:
            return None
        parts = ([snapshot[0]] if snapshot else []) + [delta for _, delta in log]
        return Compaction(row[0], row[1], log[-1][0], parts)

    @staticmethod
    def store_snapshot(tx: Transaction, compaction: Compaction, data: bytes) -> None:
        """Put a snapshot in the place of the log entries it was made from."""
        document, log_number = compaction.document, compaction.log_number
        tx.execute(
            "INSERT INTO snapshots (document, log_number, data) VALUES (?1, ?2, ?3) "
            "ON CONFLICT DO UPDATE SET log_number = ?2, data = ?3 WHERE log_number < ?2",
            (document, log_number, data),
        )
        tx.execute("DELETE FROM log WHERE document = ? AND number <= ?", (document, log_number))
        tx.execute(
            "UPDATE documents SET snapshot_bytes = ?2, logged_count = l.count, logged_bytes = l.bytes FROM "
            "(SELECT COUNT(*) AS count, COALESCE(SUM(LENGTH(delta)), 0) AS bytes FROM log WHERE document = ?1) AS l "
            "WHERE id = ?1",
            (document, len(data)),
        )

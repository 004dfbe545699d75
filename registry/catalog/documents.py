"""Replicated documents in the catalog: writing them, and taking in the updates of other replicas.

A document is a snapshot and a log of updates; beside them stand its state vector, its state digest and (in `view`) its
live facts. All of it changes together, in one transaction. Writes and updates need neither the document's bytes nor
pycrdt: our own operations are encoded directly, and the check of every update yields what it says.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from blake3 import blake3

from crdt.change import Change
from crdt.clock import HybridClock
from crdt.delta import Delta, encode_own, own_delta
from crdt.fact import Fact, parse_fact
from crdt.gate import admit
from crdt.trie import DIGEST_SIZE, build, update
from crdt.vector import Vector
from registry.catalog.database import Transaction
from registry.catalog.replica import is_large_log
from registry.catalog.tries import EMPTY_DIGEST, TrieCache
from registry.catalog.view import Identity, Read, update_view


class Early(Exception):
    """An update before which something is missing. It changed nothing."""


class WriterReused(Exception):
    """An update holds entries under this process's own writer that this process did not write. It changed nothing."""


class Applied(NamedTuple):
    """How an update was taken in."""

    vector: Vector
    digest: bytes
    fresh: bool
    """Whether it brought anything."""
    latest: tuple[int, int] = (0, 0)
    """The time and the writer of the newest fact that it brought; zeros when it brought none."""


class _Row(NamedTuple):
    id: int
    digest: bytes
    facts: int
    changed: int
    snapshot_bytes: int
    logged_count: int
    logged_bytes: int


def document_key(name: str) -> bytes:
    """The hash that places a document in the trie over all documents."""
    return blake3(name.encode()).digest(DIGEST_SIZE)


class Documents:
    """The write side. One process writes under one writer, which it registers first and never uses again."""

    def __init__(self, tries: TrieCache, clock: HybridClock, instance: str, writer: int) -> None:
        self._tries = tries
        self.clock = clock
        self._instance = instance
        self.writer = writer
        self._registered = False
        self.on_change: Callable[[Change], None] = lambda change: None
        self.on_large_log: Callable[[str], None] = lambda name: None
        self.on_links: Callable[[str, list[Fact]], None] = lambda name, links: None
        """Told the document and its new blob links when they are durable, whoever wrote them."""

    def retire_writer(self, writer: int) -> None:
        """Never write under the present writer again, but under `writer`, drawn afresh."""
        self.writer = writer
        self._registered = False

    def rename(self, instance: str, writer: int) -> None:
        """Write as another instance from now on."""
        self._instance = instance
        self.retire_writer(writer)

    def _register(self, tx: Transaction) -> None:
        """Note our writer before its first use, in the same transaction: it can be no other process's."""
        tx.execute("INSERT INTO writers (writer, instance) VALUES (?, ?)", (self.writer, self._instance))
        self._registered = True
        tx.after_rollback.append(self._forget_registration)

    def _forget_registration(self) -> None:
        self._registered = False

    def write(
        self,
        tx: Transaction,
        name: str,
        deleted: Sequence[Identity],
        facts: Sequence[Fact],
        bodies: tuple[bytes, ...] = (),
    ) -> Change:
        """One operation of ours: delete observed facts, by (writer, clock), and append others.

        Told to `on_change` once it is durable.
        """
        if not self._registered:
            self._register(tx)
        row = self._row(tx, name)
        entries = tx.rows("SELECT writer, clock, changed FROM vectors WHERE document = ?", (row.id,))
        vector = {writer: clock for writer, clock, _ in entries}
        since = next((changed for writer, _, changed in entries if writer == self.writer), 0)
        needs = {writer: clock for writer, clock, changed in entries if changed > since and writer != self.writer}
        clock = vector.get(self.writer, 0)
        delta = own_delta(self.writer, clock, [fact.text() for fact in facts], deleted)
        raw = encode_own(delta)
        number, digest, _ = self._record(tx, name, row, vector, raw, Read(delta, facts))
        change = Change(name, self.writer, clock, needs, raw, digest, number, bodies)
        tx.after_commit.append(lambda: self.on_change(change))
        return change

    def apply(self, tx: Transaction, name: str, raw: bytes, delta: Delta, needs: Vector, now_ms: int) -> Applied:
        """Take in another replica's update, checked and decoded by `decode_delta`.

        Raises Early when its entries do not continue ours, it deletes what is not here, or `needs` is not covered;
        WriterReused when it brings entries of our own writer.
        """
        row = self._row(tx, name)
        vector = self.vector(tx, row.id)
        after = admit(vector, delta, needs)
        if after is None:
            raise Early(name)
        if after.get(self.writer, 0) > vector.get(self.writer, 0):
            raise WriterReused(name)
        if after == vector and not self._deletes_live(tx, row.id, delta):
            return Applied(vector, row.digest, False)
        facts = [parse_fact(text) for _, _, text in delta.added]
        _, digest, latest = self._record(tx, name, row, vector, raw, Read(delta, facts), now_ms)
        return Applied(after, digest, True, latest)

    @staticmethod
    def _deletes_live(tx: Transaction, document: int, delta: Delta) -> bool:
        sql = "SELECT 1 FROM facts WHERE document = ? AND writer = ? AND clock BETWEEN ? AND ?"
        return any(
            tx.row(sql, (document, writer, first, first + length - 1))
            for writer, ranges in delta.deleted.items()
            for first, length in ranges
        )

    @staticmethod
    def vector(tx: Transaction, document: int | None) -> Vector:
        return dict(tx.rows("SELECT writer, clock FROM vectors WHERE document = ?", (document,)))

    def document_id(self, tx: Transaction, name: str) -> int | None:
        row = tx.row("SELECT id FROM documents WHERE name = ?", (name,))
        return row[0] if row else None

    def _row(self, tx: Transaction, name: str) -> _Row:
        found = tx.row(f"SELECT {', '.join(_Row._fields)} FROM documents WHERE name = ?", (name,))
        if found is None:
            tx.execute(
                "INSERT INTO documents (name, key, digest, facts, changed) VALUES (?, ?, ?, 0, 0)",
                (name, document_key(name), EMPTY_DIGEST),
            )
            found = (tx.last_number(), EMPTY_DIGEST, 0, 0, 0, 0, 0)
        return _Row(*found)

    def _record(
        self, tx: Transaction, name: str, row: _Row, vector: Vector, raw: bytes, read: Read, now_ms: int = 0
    ) -> tuple[int, bytes, tuple[int, int]]:
        """Log an update and bring vector, view, trie and digest along. Answers the commit number, the digest, and time
        and writer of the newest fact."""
        tx.execute("INSERT INTO log (document, delta) VALUES (?, ?)", (row.id, raw))
        number = tx.last_number()
        effect = update_view(tx, row.id, read, vector)
        if now_ms:
            self.clock.observe(effect.latest[0], now_ms)
        for writer, (first, length) in read.delta.spans.items():
            if first + length > vector.get(writer, 0):
                tx.execute(
                    "INSERT INTO vectors (document, writer, clock, changed) VALUES (?1, ?2, ?3, ?4) "
                    "ON CONFLICT DO UPDATE SET clock = ?3, changed = ?4",
                    (row.id, writer, first + length, number),
                )
        before = self._tries.get(row.id, row.changed)
        if before is None:
            # The rows already show this update, so the trie is built as it is after it.
            after = build(hashed for (hashed,) in tx.rows("SELECT hash FROM facts WHERE document = ?", (row.id,)))
        else:
            after = update(before, effect.removed, effect.added)
        self._tries.put(row.id, number, after)
        tx.after_rollback.append(lambda: self._tries.drop(row.id))
        facts = row.facts + len(effect.added) - len(effect.removed)
        logged_count, logged_bytes = row.logged_count + 1, row.logged_bytes + len(raw)
        tx.execute(
            "UPDATE documents SET digest = ?, facts = ?, changed = ?, logged_count = ?, logged_bytes = ? WHERE id = ?",
            (after.digest, facts, number, logged_count, logged_bytes, row.id),
        )
        if effect.links:
            tx.after_commit.append(lambda: self.on_links(name, effect.links))
        if is_large_log(logged_count, logged_bytes, row.snapshot_bytes):
            tx.after_commit.append(lambda: self.on_large_log(name))
        return number, after.digest, effect.latest

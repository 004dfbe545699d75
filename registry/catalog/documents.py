"""Replicated documents in the catalog: writing them, and taking in the updates of other replicas.

A document is a snapshot and a log of updates; beside them stand its state vector, its state digest and (in `view`) its
live facts. All of it changes together, in one transaction. Writes and updates need neither the document's bytes nor
pycrdt: our own operations are encoded directly, and the check of every update yields what it says.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from blake3 import blake3

from crdt.change import Change
from crdt.clock import HybridClock
from crdt.delta import Delta, encode_own, own_delta
from crdt.fact import Fact, parse_fact
from crdt.gate import admit
from crdt.trie import DIGEST_SIZE, Node, build_in_steps, update_in_steps
from crdt.vector import Vector
from registry.catalog.database import Transaction
from registry.catalog.queries import KIND
from registry.catalog.replica import is_large_log
from registry.catalog.tries import EMPTY_DIGEST, TrieCache
from registry.catalog.understanding import Understanding, require_understood
from registry.catalog.view import Identity, Read, update_view
from registry.event_loop.steps import ROWS_PER_STEP, Steps, convert_in_steps, run_to_completion

HASHES_A_STEP = 2048
"""Hashes of facts that one step reads for a trie: 3 ms of processor time."""


class MissingDependencies(Exception):
    """An update whose dependencies have not been applied here. It changed nothing."""


class WriterReused(Exception):
    """An update holds entries under this process's own writer that this process did not write. It changed nothing."""


class Applied(NamedTuple):
    """The result of applying an update to a document, with the document's state after it."""

    vector: Vector
    digest: bytes
    fresh: bool
    """True when the update changed the document."""
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
    not_understood: int


def document_key(name: str) -> bytes:
    """The hash that places a document in the trie over all documents."""
    return blake3(name.encode()).digest(DIGEST_SIZE)


class Documents:
    """The write side. One process writes under one writer, which it registers first and never uses again."""

    def __init__(
        self,
        tries: TrieCache,
        clock: HybridClock,
        instance: str,
        writer: int,
        understanding: Understanding,
    ) -> None:
        self._tries = tries
        self.clock = clock
        self._understanding = understanding
        self.kinds = understanding.kinds
        """The kinds of facts that are understood."""
        self._instance = instance
        self.writer = writer
        self._registered = False

    def retire_writer(self, writer: int) -> None:
        """Never write under the present writer again, but under `writer`, drawn afresh."""
        self.writer = writer
        self._registered = False

    def rename(self, instance: str, writer: int) -> None:
        """Write as another instance from now on."""
        self._instance = instance
        self.retire_writer(writer)

    def begin(self, tx: Transaction) -> int:
        """Return the writer of an operation in steps, registered: between two steps another may have been drawn."""
        if not self._registered:
            self._register(tx)
        return self.writer

    def _register(self, tx: Transaction) -> None:
        """Record our writer before its first use, in the same transaction, so that no other process can own it."""
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
        """One operation of ours, of few facts: delete observed facts, by (writer, clock), and append others.

        Published once it is durable, see `change_sink`.
        """
        return run_to_completion(self.write_in_steps(tx, name, deleted, facts, bodies))

    def write_in_steps(
        self,
        tx: Transaction,
        name: str,
        deleted: Sequence[Identity],
        facts: Sequence[Fact],
        bodies: tuple[bytes, ...] = (),
        writer: int | None = None,
        heals: bool = False,
    ) -> Steps[Change]:
        """Write any number of facts, as `write` does; under the `writer` that `begin` returned, where the facts name
        it.

        Raises NeedsUpgrade for a repository that is not understood, unless it `heals` a fork, which re-asserts what is
        there."""
        if name.startswith(KIND) and not heals:
            require_understood(tx, name)
        own = self.begin(tx) if writer is None else writer
        row = self._row(tx, name)
        entries = tx.rows("SELECT writer, clock, changed FROM vectors WHERE document = ?", (row.id,))
        vector = {writer: clock for writer, clock, _ in entries}
        since = next((changed for writer, _, changed in entries if writer == own), 0)
        needs = {writer: clock for writer, clock, changed in entries if changed > since and writer != own}
        clock = vector.get(own, 0)
        texts = yield from convert_in_steps(Fact.text, facts)
        delta = own_delta(own, clock, texts, deleted)
        if len(texts) > ROWS_PER_STEP:
            yield
        raw = encode_own(delta)
        number, digest, _ = yield from self._record(tx, name, row, vector, raw, Read(delta, facts))
        change = Change(name, own, clock, needs, raw, digest, number, bodies)
        tx.after_commit.append(partial(tx.sink.publish, change))
        return change

    def apply(self, tx: Transaction, name: str, raw: bytes, delta: Delta, needs: Vector, now_ms: int) -> Steps[Applied]:
        """Take in another replica's update, checked and decoded by `decode_delta`, in bounded steps.

        Raises MissingDependencies when its entries do not continue ours, it deletes what is not here, or `needs` is not
        covered; WriterReused when it brings entries of our own writer.
        """
        row = self._row(tx, name)
        vector = self.vector(tx, row.id)
        after = admit(vector, delta, needs)
        if after is None:
            raise MissingDependencies(name)
        if after.get(self.writer, 0) > vector.get(self.writer, 0):
            raise WriterReused(name)
        if after == vector and not (yield from self._deletes_live(tx, row.id, delta)):
            return Applied(vector, row.digest, False)
        facts = yield from convert_in_steps(lambda entry: parse_fact(entry.text, self.kinds), delta.added)
        _, digest, latest = yield from self._record(tx, name, row, vector, raw, Read(delta, facts), now_ms)
        return Applied(after, digest, True, latest)

    @staticmethod
    def _deletes_live(tx: Transaction, document: int, delta: Delta) -> Steps[bool]:
        sql = "SELECT 1 FROM facts WHERE document = ? AND writer = ? AND clock BETWEEN ? AND ?"
        for writer, ranges in delta.deleted.items():
            for number, (first, length) in enumerate(ranges, 1):
                if tx.row(sql, (document, writer, first, first + length - 1)):
                    return True
                if number % ROWS_PER_STEP == 0:
                    yield
        return False

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
            found = (tx.last_number(), EMPTY_DIGEST, 0, 0, 0, 0, 0, 0)
        return _Row(*found)

    def _record(
        self, tx: Transaction, name: str, row: _Row, vector: Vector, raw: bytes, read: Read, now_ms: int = 0
    ) -> Steps[tuple[int, bytes, tuple[int, int]]]:
        """Log an update and bring vector, view, trie and digest along. Return the commit number, the digest, and time
        and writer of the newest fact."""
        sink = tx.sink
        tx.execute("INSERT INTO log (document, delta) VALUES (?, ?)", (row.id, raw))
        number = tx.last_number()
        effect = yield from update_view(tx, row.id, read, vector)
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
        after: Node
        if before is None:
            # The rows already show this update, so the trie is built as it is after it.
            after = yield from build_in_steps(_hashes(tx, row.id))
        else:
            after = yield from update_in_steps(before, effect.removed, effect.added)
        self._tries.put(row.id, number, after)
        tx.after_rollback.append(lambda: self._tries.drop(row.id))
        facts = row.facts + len(effect.added) - len(effect.removed)
        not_understood = row.not_understood + effect.not_understood
        logged_count, logged_bytes = row.logged_count + 1, row.logged_bytes + len(raw)
        tx.execute(
            "UPDATE documents SET digest = ?, facts = ?, changed = ?, logged_count = ?, logged_bytes = ?, "
            "not_understood = ? WHERE id = ?",
            (after.digest, facts, number, logged_count, logged_bytes, not_understood, row.id),
        )
        if bool(not_understood) != bool(row.not_understood):
            tx.after_commit.append(lambda: self._understanding.changed(name, not not_understood))
        if effect.links:
            tx.after_commit.append(partial(sink.linked, name, effect.links))
        if is_large_log(logged_count, logged_bytes, row.snapshot_bytes):
            tx.after_commit.append(partial(sink.log_grew, name))
        return number, after.digest, effect.latest


def _hashes(tx: Transaction, document: int) -> Iterator[list[bytes]]:
    """Yield the hashes of a document's live facts, a page for each step."""
    last: tuple[int, int] = (-1, -1)
    sql = (
        "SELECT hash, writer, clock FROM facts WHERE document = ? AND (writer, clock) > (?, ?) "
        f"ORDER BY writer, clock LIMIT {HASHES_A_STEP}"
    )
    while rows := tx.rows(sql, (document, *last)):
        yield [hashed for hashed, _, _ in rows]
        last = rows[-1][1:]

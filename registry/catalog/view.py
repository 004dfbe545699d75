"""The view: live facts as rows. It is made from what updates add and delete, never by reading documents."""

from collections.abc import Sequence
from typing import NamedTuple

from crdt.delta import Delta
from crdt.fact import BLOB, MANIFEST, TAG, Fact, fact_hash
from registry.catalog.database import Transaction

Identity = tuple[int, int]
"""A fact's writer and clock: by these it can be deleted."""


class LiveFact(NamedTuple):
    """A fact as observed: what it says, and the identity under which it can be deleted."""

    kind: str
    key: str
    digest: str
    media_type: str
    size: int
    time: int
    writer: int
    clock: int

    @property
    def identity(self) -> Identity:
        return self.writer, self.clock

    def text(self) -> str:
        """The string the document holds."""
        return Fact(*self[:-1]).text()


COLUMNS = "kind, key, digest, media_type, size, time, writer, clock"


class Effect(NamedTuple):
    """What an update did to the live facts of its document, as hashes for the state digest."""

    removed: list[bytes]
    added: list[bytes]
    latest: tuple[int, int]
    """The highest time among the added facts, and the writer of that fact; zeros without any."""
    links: list[Fact]
    """The blob links among the added facts."""


def observed(tx: Transaction, document: int, kind: str, key: str) -> list[LiveFact]:
    """The live facts of one kind about one key, the winner last."""
    sql = f"SELECT {COLUMNS} FROM facts WHERE document = ? AND kind = ? AND key = ? ORDER BY time, writer"
    return [LiveFact(*row) for row in tx.execute(sql, (document, kind, key))]


def all_observed(tx: Transaction, document: int) -> list[LiveFact]:
    """Every live fact of a document."""
    return [LiveFact(*row) for row in tx.execute(f"SELECT {COLUMNS} FROM facts WHERE document = ?", (document,))]


def observed_tags_of(tx: Transaction, document: int, digest: str) -> list[LiveFact]:
    """The live tag facts that point at a manifest."""
    sql = f"SELECT {COLUMNS} FROM facts WHERE document = ? AND kind = 't' AND digest = ?"
    return [LiveFact(*row) for row in tx.execute(sql, (document, digest))]


class Read(NamedTuple):
    """An update, and the facts it adds, in its order."""

    delta: Delta
    facts: Sequence[Fact]


def update_view(tx: Transaction, document: int, read: Read, vector: dict[int, int]) -> Effect:
    """Bring the rows of `document`, which was at `vector`, to what they are after an update.

    Entries that the vector already counts are live or deleted here and stay as they are.
    """
    added: list[bytes] = []
    removed: list[bytes] = []
    tags: set[str] = set()
    links: list[Fact] = []
    latest = (0, 0)
    for (writer, clock, text), fact in zip(read.delta.added, read.facts, strict=True):
        if clock >= vector.get(writer, 0):
            hashed = fact_hash(text)
            _insert(tx, document, fact, writer, clock, hashed)
            added.append(hashed)
            latest = max(latest, (fact.time, fact.writer))
            if fact.kind == TAG:
                tags.add(fact.key)
            elif fact.kind == BLOB:
                links.append(fact)
    for writer, ranges in read.delta.deleted.items():
        for first, length in ranges:
            for kind, key, hashed in tx.rows(
                "DELETE FROM facts WHERE document = ? AND writer = ? AND clock BETWEEN ? AND ? "
                "RETURNING kind, key, hash",
                (document, writer, first, first + length - 1),
            ):
                removed.append(hashed)
                if kind == TAG:
                    tags.add(key)
    for tag in tags:
        _note_conflict(tx, document, tag)
    for hashed in set(removed) & set(added):
        removed.remove(hashed)
        added.remove(hashed)
    return Effect(removed, added, latest, links)


def _insert(tx: Transaction, document: int, fact: Fact, writer: int, clock: int, hashed: bytes) -> None:
    tx.execute(
        "INSERT INTO facts (document, kind, key, time, writer, clock, digest, media_type, size, hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (document, fact.kind, fact.key, fact.time, writer, clock, fact.digest, fact.media_type, fact.size, hashed),
    )
    if fact.kind == MANIFEST:
        tx.execute(
            "INSERT OR IGNORE INTO wanted (digest, document) "
            "SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM manifests WHERE digest = ?1)",
            (fact.key, document),
        )


def _note_conflict(tx: Transaction, document: int, tag: str) -> None:
    # Not COUNT(DISTINCT digest): for that SQLite would walk the index by digest, all tags of the repository.
    digests = set(tx.rows("SELECT digest FROM facts WHERE document = ? AND kind = 't' AND key = ?", (document, tag)))
    if len(digests) > 1:
        tx.execute("INSERT OR IGNORE INTO conflicts (document, tag) VALUES (?, ?)", (document, tag))
    else:
        tx.execute("DELETE FROM conflicts WHERE document = ? AND tag = ?", (document, tag))

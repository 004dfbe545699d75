"""The view: live facts as rows. It is made from what updates add and delete, never by reading documents."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from crdt.delta import Delta
from crdt.fact import BLOB, CRITICAL, MANIFEST, OTHER, TAG, Fact, FactReader, fact_hash, parse_fact
from registry.catalog.database import Transaction
from registry.catalog.winner import winner_first
from registry.catalog.wrong_sizes import compare_fact
from registry.event_loop.steps import ROWS_PER_STEP, Steps

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
    """The change that an update made to the live facts of its document, as hashes for the state digest."""

    removed: list[bytes]
    added: list[bytes]
    latest: tuple[int, int]
    """The highest time among the added facts, and the writer of that fact; zeros without any."""
    links: list[Fact]
    """The blob links among the added facts."""
    not_understood: int
    """The change of the number of live critical facts that are not understood; it may be negative."""


def observed(tx: Transaction, document: int, kind: str, key: str) -> list[LiveFact]:
    """Return the live facts of one kind about one key, the winner first."""
    sql = f"SELECT {COLUMNS} FROM facts WHERE document = ? AND kind = ? AND key = ? ORDER BY {winner_first()}"
    return [LiveFact(*row) for row in tx.execute(sql, (document, kind, key))]


def all_observed(tx: Transaction, document: int) -> list[LiveFact]:
    """Every live fact of a document."""
    return [LiveFact(*row) for row in tx.execute(f"SELECT {COLUMNS} FROM facts WHERE document = ?", (document,))]


def observed_tags_of(tx: Transaction, document: int, digest: str) -> Steps[list[LiveFact]]:
    """Return the live tag facts that point at a manifest, read in bounded steps: any number of tags may."""
    found: list[LiveFact] = []
    sql = (
        f"SELECT {COLUMNS} FROM facts WHERE document = ? AND kind = 't' AND digest = ? "
        "AND (key, time, writer, clock) > (?, ?, ?, ?) ORDER BY key, time, writer, clock LIMIT ?"
    )
    last: tuple[str, int, int, int] = ("", -1, -1, -1)
    while rows := tx.rows(sql, (document, digest, *last, ROWS_PER_STEP)):
        found += (LiveFact(*row) for row in rows)
        last = (found[-1].key, found[-1].time, found[-1].writer, found[-1].clock)
        if len(rows) < ROWS_PER_STEP:
            break
        yield
    return found


class Read(NamedTuple):
    """An update, and the facts it adds, in its order."""

    delta: Delta
    facts: Sequence[Fact]


def update_view(tx: Transaction, document: int, read: Read, vector: dict[int, int]) -> Steps[Effect]:
    """Bring the rows of `document`, which was at `vector`, to what they are after an update, in bounded steps.

    Entries that the vector already counts are live or deleted here and stay as they are.
    """
    added: list[bytes] = []
    removed: list[bytes] = []
    tags: set[str] = set()
    links: list[Fact] = []
    latest = (0, 0)
    not_understood = 0
    for number, ((writer, clock, text), fact) in enumerate(zip(read.delta.added, read.facts, strict=True), 1):
        if clock >= vector.get(writer, 0):
            hashed = fact_hash(text)
            _insert(tx, document, fact, writer, clock, hashed)
            added.append(hashed)
            latest = max(latest, (fact.time, fact.writer))
            if fact.kind == TAG:
                tags.add(fact.key)
            elif fact.kind == BLOB:
                links.append(fact)
            elif fact.kind == CRITICAL:
                not_understood += 1
        if number % ROWS_PER_STEP == 0:
            yield
    for number, (writer, first, last) in enumerate(_deleted_ranges(tx, document, read.delta), 1):
        for kind, key, hashed in tx.rows(
            "DELETE FROM facts WHERE document = ? AND writer = ? AND clock BETWEEN ? AND ? RETURNING kind, key, hash",
            (document, writer, first, last),
        ):
            removed.append(hashed)
            if kind == TAG:
                tags.add(key)
            elif kind == CRITICAL:
                not_understood -= 1
        if last - first + 1 >= ROWS_PER_STEP or number % ROWS_PER_STEP == 0:
            yield
    for number, tag in enumerate(tags, 1):
        _note_conflict(tx, document, tag)
        if number % ROWS_PER_STEP == 0:
            yield
    both = set(removed) & set(added)
    return Effect(_each_once_less(removed, both), _each_once_less(added, both), latest, links, not_understood)


class ReadAgain(NamedTuple):
    """The number of facts that were read again, and the number of those that are understood now."""

    facts: int
    understood: int


_NOT_UNDERSTOOD = "SELECT DISTINCT document FROM facts WHERE kind IN ('!', '?')"
_OF_DOCUMENT = """
SELECT key, writer, clock, hash FROM facts WHERE document = ? AND kind IN ('!', '?') AND (writer, clock) > (?, ?)
ORDER BY writer, clock LIMIT ?
"""


def read_again(tx: Transaction, kinds: Mapping[str, FactReader]) -> Steps[ReadAgain]:
    """Read the facts again, of all documents, that were not understood when they came, in bounded steps."""
    facts = understood = 0
    for (document,) in tx.rows(_NOT_UNDERSTOOD):
        tags: set[str] = set()
        last: tuple[int, int] = (-1, -1)
        while rows := tx.rows(_OF_DOCUMENT, (document, *last, ROWS_PER_STEP)):
            for text, writer, clock, hashed in rows:
                fact = parse_fact(text, kinds)
                facts += 1
                if fact.kind in (CRITICAL, OTHER):
                    continue
                understood += 1
                tx.execute(
                    "DELETE FROM facts WHERE document = ? AND writer = ? AND clock = ?", (document, writer, clock)
                )
                _insert(tx, document, fact, writer, clock, hashed)
                if fact.kind == TAG:
                    tags.add(fact.key)
            last = rows[-1][1:3]
            yield
        for tag in tags:
            _note_conflict(tx, document, tag)
        tx.execute(
            "UPDATE documents SET not_understood = "
            f"(SELECT COUNT(*) FROM facts WHERE document = ?1 AND kind = '{CRITICAL}') WHERE id = ?1",
            (document,),
        )
    return ReadAgain(facts, understood)


def _each_once_less(hashes: list[bytes], less: set[bytes]) -> list[bytes]:
    """Return `hashes` without the first of each that is in `less`."""
    pending = set(less)
    left = []
    for hashed in hashes:
        if hashed in pending:
            pending.remove(hashed)
        else:
            left.append(hashed)
    return left


def _deleted_ranges(tx: Transaction, document: int, delta: Delta) -> Iterator[tuple[int, int, int]]:
    """Yield the deleted clocks as (writer, first, last), each range with few live facts: one range in an update may
    cover all that a writer has ever written."""
    sql = (
        f"SELECT clock FROM facts WHERE document = ? AND writer = ? AND clock BETWEEN ? AND ? "
        f"ORDER BY clock LIMIT 1 OFFSET {ROWS_PER_STEP}"
    )
    for writer, ranges in delta.deleted.items():
        for first, length in ranges:
            last = first + length - 1
            while last - first >= ROWS_PER_STEP and (row := tx.row(sql, (document, writer, first, last))):
                yield writer, first, row[0] - 1
                first = row[0]
            yield writer, first, last


def _insert(tx: Transaction, document: int, fact: Fact, writer: int, clock: int, hashed: bytes) -> None:
    tx.execute(
        "INSERT INTO facts (document, kind, key, time, writer, clock, digest, media_type, size, hash) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (document, fact.kind, fact.key, fact.time, writer, clock, fact.digest, fact.media_type, fact.size, hashed),
    )
    compare_fact(tx, fact)
    if fact.kind == MANIFEST:
        tx.execute(
            "INSERT OR IGNORE INTO missing_bodies (digest, document) "
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

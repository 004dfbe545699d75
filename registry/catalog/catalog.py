"""The whole catalog of one data directory, opened."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crdt.catchup import State
from crdt.clock import HybridClock
from crdt.fact import FactReader
from crdt.vector import Vector
from registry.access import facts as access
from registry.capabilities import FACT_KINDS
from registry.catalog.access import AWAITED, CommittedAccess, mark_awaited
from registry.catalog.change_sink import CommitObserver
from registry.catalog.database import Database, Reads, Transaction
from registry.catalog.documents import Applied, Documents, WriterReused
from registry.catalog.forks import heal
from registry.catalog.incoming import Incoming, bind_writer, take_in
from registry.catalog.queries import Queries
from registry.catalog.replica import DocumentReplica
from registry.catalog.tries import TrieCache
from registry.catalog.understanding import Understanding
from registry.catalog.view import COLUMNS, LiveFact
from registry.catalog.wrong_sizes import WrongSizes
from registry.errors import StorageFailed
from registry.event_loop.steps import Steps
from registry.ports import Clock, Disk
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.catalog")

PATH = "catalog.sqlite"
WRITER_BITS = 53
_NOTE = "INSERT OR REPLACE INTO meta (key, value) VALUES ('stopped at', ?)"
DRAWN_BITS = 16


class Catalog:
    """Opens the database, names the instance when it is new, and holds the parts together.

    Raises CannotStart for a database of a newer version or one that cannot be made durable, apsw.Error for a damaged
    one.
    """

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        kinds: Mapping[str, FactReader] = FACT_KINDS,
        observers: Sequence[CommitObserver] = (),
    ) -> None:
        """`kinds` are the kinds of facts that this version understands; `observers` see every commit."""
        self._clock = clock
        self.understanding = Understanding(kinds, clock)
        self.wrong_sizes = WrongSizes(lambda writer: self.queries.instance_of(writer))
        self.database = Database(disk, PATH, self.wrong_sizes, observers)
        self.instance_id = ""
        self.secret = b""
        self.incarnation = 0
        self.digest_matches_last_shutdown: bool | None = None
        """True when the state digest at this start was that of the last orderly end; None after any other end."""
        self.replica = DocumentReplica(self.database)
        self.queries = Queries(self.database)
        self.access = CommittedAccess(self.database)

    async def start(self, awaits_access: bool = True) -> None:
        """Name the instance if it is new, count this start, and draw its writer. With `awaits_access`, a new instance
        serves no client before it has met a member; without, one that waits for that waits no longer."""
        fresh = self._clock.entropy(16).hex(), self._clock.entropy(32)
        identity = await self.database.write(lambda tx: _begin(tx, *fresh, self._clock, awaits_access))
        self.instance_id, self.secret, self.incarnation = identity
        writer = self._draw_writer()
        self.documents = Documents(TrieCache(), HybridClock(), self.instance_id, writer, self.understanding)
        self.database.on_failed_commit.append(self.retire_writer)
        await self._compare_with_last_shutdown()
        await self._read_again()

    async def _read_again(self) -> None:
        """Read again what an earlier version did not understand. Raises CannotStart where it understood more."""
        understanding = self.understanding
        if not understanding.is_current(self.database):
            done = await self.database.write_in_steps(understanding.read_again)
            if done.facts:
                message = "%(understood)d of %(facts)d facts are understood that were not before"
                log.info(LogEvent.FACTS_REREAD, message, understood=done.understood, facts=done.facts)
        understanding.report(self.database)

    async def _compare_with_last_shutdown(self) -> None:
        """Compare the state digest with the one that the last orderly end has noted, if there is one."""
        row = self.database.row("SELECT value FROM meta WHERE key = 'stopped at'")
        if row is None:
            return
        await self.database.write(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'stopped at'"))
        self.digest_matches_last_shutdown = row[0] == self.replica.root()
        if not self.digest_matches_last_shutdown:
            log.error(
                LogEvent.STATE_DIGEST_MISMATCHED,
                "the state digest is not what it was when this instance was stopped: its catalog was changed",
            )

    async def stop(self) -> None:
        """Record the state digest for the next start, and close."""
        root = self.replica.root()
        try:
            await self.database.write(lambda tx: tx.execute(_NOTE, (root,)))
        except StorageFailed as error:
            log.warning(
                LogEvent.STATE_DIGEST_WRITE_FAILED, "the state digest could not be noted: %(error)s", error=error
            )
        await self.database.close()

    async def begin_incarnation(self, above: int) -> int:
        """Count another start, later than `above`, and draw another writer for it. Return its number."""
        self.incarnation = await self.database.write(lambda tx: _next_incarnation(tx, above, self._clock))
        self.retire_writer()
        return self.incarnation

    async def rename(self) -> None:
        """Take another instance id: the present one is gone for good. Another start and another writer go with it."""
        instance = self._clock.entropy(16).hex()

        def operation(tx: Transaction) -> int:
            tx.execute("UPDATE meta SET value = ? WHERE key = 'instance'", (instance,))
            return _next_incarnation(tx, 0, self._clock)

        self.incarnation = await self.database.write(operation)
        self.instance_id = instance
        self.documents.rename(instance, self._draw_writer())

    def retire_writer(self) -> None:
        """Write under a fresh writer from now on.

        Called after a commit that failed, since it is unknown what the disk holds of it, and after another process has
        used our writer, since it is unknown which entries that process wrote. In both cases no clock of the old writer
        may be used again.
        """
        self.documents.retire_writer(self._draw_writer())

    async def take_in(self, incoming: Incoming, sender: str | None = None) -> Applied:
        """Commit an update that came from elsewhere; with its `sender` (an instance), whose writer it is under.

        Raises RightsBehind, MissingDependencies, ForeignWriter, CrdtError or StorageFailed, and then has changed
        nothing.
        """
        if incoming.document != access.DOCUMENT:
            self.access.require_reached(incoming.revisions)  # once reached, always reached: no fact is ever deleted
        now_ms = self._clock.now_ms()

        def operation(tx: Transaction) -> Steps[Applied]:
            if sender is not None:
                for writer in incoming.delta.spans:
                    bind_writer(tx, writer, sender)
            return (yield from take_in(tx, self.documents, incoming, now_ms))

        try:
            applied = await self.database.write_in_steps(operation)
        except WriterReused:
            log.error(
                LogEvent.WRITER_REUSE_DETECTED,
                "%(document)s was written to under our writer; this process goes on under another",
                document=incoming.document,
            )
            self.retire_writer()
            applied = await self.database.write_in_steps(operation)
        if applied.fresh:
            self.database.sink.taken_in(applied.latest, sender)
        return applied

    async def heal(self, document: str, vector: Vector, theirs: list[tuple[int, int, str]]) -> None:
        """Bring a document together with another replica's, see `forks`."""
        await self.database.write_in_steps(lambda tx: heal(tx, self.documents, document, vector, theirs))

    def facts(self, document: str) -> tuple[State, list[tuple[int, int, str]]]:
        """A document's state and its live facts, each (writer, clock, text), as of the same commit."""
        with self.database.one_step():
            rows = self.database.rows(
                f"SELECT {COLUMNS} FROM facts WHERE document = (SELECT id FROM documents WHERE name = ?)", (document,)
            )
            state = self.replica.state(document)
        return state, [(*fact.identity, fact.text()) for fact in (LiveFact(*row) for row in rows)]

    def _draw_writer(self) -> int:
        return int.from_bytes(self._clock.entropy(8), "big") >> (64 - WRITER_BITS)


class Identity(NamedTuple):
    """The id of the instance and its secret, as the catalog has them."""

    instance: str
    secret: bytes


def stored_identity(database: Reads) -> Identity:
    """Return the identity of an instance that has been started."""
    found = dict(database.rows("SELECT key, value FROM meta WHERE key IN ('instance', 'secret')"))
    return Identity(found["instance"], found["secret"])


def _begin(tx: Transaction, instance: str, secret: bytes, clock: Clock, awaits_access: bool) -> tuple[str, bytes, int]:
    """Return the instance's id and secret, drawn when it is new, and the number of this start, greater than all
    before."""
    tx.execute(
        "INSERT OR IGNORE INTO meta (key, value) VALUES ('instance', ?), ('secret', ?), ('incarnation', 0)",
        (instance, secret),
    )
    if not awaits_access:
        tx.execute("DELETE FROM meta WHERE key = ?", (AWAITED,))
    elif tx.row("SELECT 1 FROM meta WHERE key = 'incarnation' AND value = 0"):
        mark_awaited(tx)
    incarnation = _next_incarnation(tx, 0, clock)
    found = dict(tx.rows("SELECT key, value FROM meta"))
    return found["instance"], found["secret"], incarnation


def _next_incarnation(tx: Transaction, above: int, clock: Clock) -> int:
    """Return the number of a start, later than all before, and store it.

    Its last bits are random: a restored directory may count the same way once more, and two starts must never have the
    same number, or messages of one would pass for messages of the other.
    """
    (last,) = tx.row("SELECT value FROM meta WHERE key = 'incarnation'")
    drawn = int.from_bytes(clock.entropy(DRAWN_BITS // 8), "big")
    incarnation: int = max((max(last, above) >> DRAWN_BITS) + 1, clock.now_ms()) << DRAWN_BITS | drawn
    tx.execute("UPDATE meta SET value = ? WHERE key = 'incarnation'", (incarnation,))
    return incarnation

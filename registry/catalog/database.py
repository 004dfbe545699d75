"""One SQLite database: a connection that reads, one that writes, and group commit.

Writes are plain functions that get a transaction. Those that are waiting are run one after the other in one SQLite
transaction, each under a savepoint of its own, so that one that raises is rolled back alone, and are made durable by
one commit. Only the commit, which waits for the disk, runs in a thread; while it does, the next group gathers. No lock
is held over the commit, and no write returns before it has succeeded. The thread is for commits alone: every write
waits for them, and in the shared executor they would queue behind the hashing of uploads.

An operation whose work grows with what was pushed is a generator: it yields after each bounded step, and the loop turns
before the next one. Other writes wait for it; reads, which see what is committed, and everything else do not.
"""

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import apsw

from registry.catalog import schema
from registry.catalog.change_sink import ChangeSink, CommitObserver
from registry.disk_errors import storage_failure
from registry.event_loop.steps import Steps, run_in_steps
from registry.ports import Disk
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.request_ids import without_request

log = EventLog("concord.database")

T = TypeVar("T")

MAX_GROUP = 256
BUSY_TIMEOUT_MS = 5_000
OPERATIONS_A_STEP = 16
"""Operations of a group that run before the loop turns: a usual push takes 0.3 ms."""
_IN_MEMORY = 2
"""Where SQLite keeps the journal of a single statement: in memory, since it is small. Otherwise it is in the system's
temporary directory, which may be full, or read-only as in a container, while the data directory is not."""


class WrongSize(NamedTuple):
    """A size that a fact states of a content or a manifest, and the one that is right, see `wrong_sizes`."""

    digest: str
    stated: int
    size: int
    writer: int


class WrongSizeReport(Protocol):
    """The report of wrong sizes."""

    def report(self, wrong: WrongSize) -> None:
        """Report a wrong size that a committed operation has noticed."""


class Transaction:
    """One operation inside a group: SQL, and what is to happen once the group is durable."""

    def __init__(self, connection: apsw.Connection, sink: ChangeSink | None) -> None:
        self._connection = connection
        self._sink = sink
        self.after_commit: list[Callable[[], None]] = []
        self.after_rollback: list[Callable[[], None]] = []
        self.wrong_sizes: list[WrongSize] = []
        self.adds_content = False

    @property
    def sink(self) -> ChangeSink:
        """The steps that follow the commit. Raises RuntimeError before a sink is attached, which rolls the operation
        back."""
        if self._sink is None:
            raise RuntimeError("the database has no sink for what follows a commit: attach one before the first write")
        return self._sink

    def note_content_added(self) -> None:
        """Note that the operation adds content, for the step that follows the group."""
        _ = self.sink  # raises where there is none
        self.adds_content = True

    def execute(self, sql: str, bindings: tuple[Any, ...] = ()) -> apsw.Cursor:
        return self._connection.execute(sql, bindings)

    def row(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        """The first row, or None."""
        return self._connection.execute(sql, bindings).fetchone()

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        return self._connection.execute(sql, bindings).fetchall()

    def execute_many(self, sql: str, bindings: Iterable[tuple[Any, ...]]) -> None:
        self._connection.executemany(sql, bindings)

    def changes(self) -> int:
        """Return how many rows the last statement has changed."""
        return self._connection.changes()

    def last_number(self) -> int:
        """The number of the row inserted last."""
        return self._connection.last_insert_rowid()


Operation = Callable[[Transaction], T]
_Waiting = tuple[Operation[Any], "asyncio.Future[Any]"]


class Reads:
    """Reads of what is committed, from any process."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk, self._path = disk, path
        self.reading = disk.connect(path)
        schema.configure(self.reading)
        self.reading.set_busy_timeout(BUSY_TIMEOUT_MS)
        self.reading.pragma("query_only", True)

    def close_reading(self) -> None:
        """Close the connection."""
        self.reading.close()

    def row(self, sql: str, bindings: tuple[Any, ...] = ()) -> Any:
        """The first row of a query over what is committed, or None."""
        return self.reading.execute(sql, bindings).fetchone()

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        return self.reading.execute(sql, bindings).fetchall()

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Several reads that see the same committed state; two reads outside may see two. Nothing may be awaited
        inside."""
        if self.reading.in_transaction:
            yield  # part of a larger step
            return
        self.reading.execute("BEGIN")
        try:
            yield
        finally:
            self.reading.execute("COMMIT")

    async def read_aside(self, job: Callable[[apsw.Connection], T]) -> T:
        """Run a read that takes long in the executor, on a connection of its own, in one step."""

        def read() -> T:
            connection = self._disk.connect(self._path)
            try:
                connection.set_busy_timeout(BUSY_TIMEOUT_MS)
                schema.plan_once(connection)
                connection.execute("BEGIN")
                return job(connection)
            finally:
                connection.close()

        return await asyncio.get_running_loop().run_in_executor(None, read)

    async def rows_aside(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows of a query that may walk a whole table, see `read_aside`."""
        return await self.read_aside(lambda connection: connection.execute(sql, bindings).fetchall())


class Database(Reads):
    """The writing side: one connection, and group commit of concurrent operations.

    `write` raises StorageFailed when the disk does not take a commit."""

    def __init__(
        self, disk: Disk, path: str, wrong_sizes: WrongSizeReport, observers: Sequence[CommitObserver] = ()
    ) -> None:
        self._writing = disk.connect(path)
        schema.configure(self._writing)
        schema.migrate(self._writing)
        self._writing.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._writing.pragma("temp_store", _IN_MEMORY)
        super().__init__(disk, path)
        self._commits = ThreadPoolExecutor(1, "commits")
        self._queue: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self.on_failed_commit: list[Callable[[], None]] = []
        self._wrong_sizes = wrong_sizes
        self._observations = [observer.on_commit for observer in observers]
        self._sink: ChangeSink | None = None

    def attach(self, sink: ChangeSink) -> None:
        """Give the steps that follow a commit, once. Construction cannot: the sink needs the instance's id, which a
        first commit has to make durable."""
        assert self._sink is None, "a database has one sink"
        self._sink = sink

    @property
    def sink(self) -> ChangeSink:
        """The steps that follow a commit."""
        assert self._sink is not None, "a sink is attached"
        return self._sink

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation` in the next group and wait until it is durable.

        Raises what the operation raised, after which nothing of it is there, or StorageFailed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((operation, future))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_groups(), context=without_request())
        return await future

    async def write_in_steps(self, operation: Operation[Steps[T]]) -> T:
        """Run an operation in bounded steps, as `write` does: the loop turns between two steps."""
        result: Any = await self.write(operation)
        return result  # type: ignore[no-any-return]  # `_run` replaces the generator by what it returns

    async def close(self) -> None:
        """Wait for the writes that are under way, then close."""
        if self._committing is not None:
            await asyncio.wait([self._committing])
        self._commits.shutdown(wait=False)
        self.close_reading()
        self._writing.close()

    async def _commit_groups(self) -> None:
        while self._queue:
            group, self._queue = self._queue[:MAX_GROUP], self._queue[MAX_GROUP:]
            transactions: list[Transaction] = []
            results: list[tuple[asyncio.Future[Any], Any]] = []
            try:
                self._writing.execute("BEGIN IMMEDIATE")
                for number, (operation, future) in enumerate(group, 1):
                    await self._run(operation, future, transactions, results)
                    if number % OPERATIONS_A_STEP == 0:
                        await asyncio.sleep(0)
                await asyncio.get_running_loop().run_in_executor(self._commits, self._writing.execute, "COMMIT")
            except Exception as error:
                self._fail(group, transactions, error)
                continue
            _call_all(self._observations)
            for future, result in results:
                if not future.done():
                    future.set_result(result)  # its waiter goes on after the calls below
            for transaction in transactions:
                _call_all(transaction.after_commit)
                for wrong in transaction.wrong_sizes:
                    self._wrong_sizes.report(wrong)
            if any(transaction.adds_content for transaction in transactions):
                self.sink.content_added()

    async def _run(
        self,
        operation: Operation[Any],
        future: "asyncio.Future[Any]",
        transactions: list[Transaction],
        results: list[tuple["asyncio.Future[Any]", Any]],
    ) -> None:
        transaction = Transaction(self._writing, self._sink)
        transactions.append(transaction)
        self._writing.execute("SAVEPOINT operation")
        try:
            result = operation(transaction)
            if isinstance(result, Generator):
                result = await run_in_steps(result)
        except Exception as error:
            if isinstance(error, (apsw.IOError, apsw.FullError, apsw.CorruptError, apsw.NotADBError)):
                raise
            self._writing.execute("ROLLBACK TO operation")
            self._writing.execute("RELEASE operation")
            _call_all(transactions.pop().after_rollback)
            if not future.done():
                future.set_exception(error)
            return
        self._writing.execute("RELEASE operation")
        results.append((future, result))

    def _fail(self, group: list[_Waiting], transactions: list[Transaction], error: Exception) -> None:
        """Roll a whole group back. A failed commit is never retried as if it could still succeed."""
        if self._writing.in_transaction:
            self._writing.execute("ROLLBACK")
        for transaction in transactions:
            _call_all(transaction.after_rollback)
        _call_all(self.on_failed_commit)
        failure = storage_failure("the catalog could not be written", error)
        for _, future in group:
            if not future.done():
                future.set_exception(failure)


def _call_all(calls: list[Callable[[], None]]) -> None:
    """Call all hooks. A hook that raises is a bug, and must not keep the others from being called."""
    for call in calls:
        try:
            call()
        except Exception:
            log.exception(LogEvent.COMMIT_HOOK_FAILED, "something that follows a commit failed")

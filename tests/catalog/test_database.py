import asyncio
import threading

import apsw
import pytest

from registry.adapters.disk import SystemDisk
from registry.catalog import schema
from registry.catalog.collection import unreadable_manifest
from registry.catalog.database import Database
from registry.errors import CannotStart, StorageFailed
from registry.telemetry.request_ids import CURRENT
from tests.support import images
from tests.support.client import sha256
from tests.support.stand_ins import WrongSizesIgnored


class CommitCounter:
    """Counts the commits that reach the disk, and fails one when told to."""

    def __init__(self, database: Database) -> None:
        self.commits = 0
        self.fail_next = False
        database._writing.set_commit_hook(self._commit)

    def _commit(self) -> bool:
        self.commits += 1
        failing, self.fail_next = self.fail_next, False
        return failing  # true turns the commit into a rollback


class NowhereElse(apsw.VFS):
    """The system's files, where SQLite gets no temporary ones."""

    def __init__(self) -> None:
        super().__init__("nowhere-else", "")

    def xOpen(self, name, flags):
        if name is None:
            raise apsw.CantOpenError("there is no temporary directory")
        return super().xOpen(name, flags)


class DiskAlone(SystemDisk):
    def connect(self, path):
        return apsw.Connection(str(self.root / path), vfs="nowhere-else")


@pytest.fixture
def database(tmp_path):
    opened = Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    yield opened
    opened.reading.close()
    opened._writing.close()


def insert(key, value=1):
    return lambda tx: tx.execute("INSERT INTO meta (key, value) VALUES (?, ?)", (key, value)).fetchall()


def keys(database):
    return [key for (key,) in database.rows("SELECT key FROM meta ORDER BY key")]


def test_a_statement_is_compiled_once_whatever_is_bound(database):
    sql = "SELECT key FROM facts WHERE document = ? AND kind = ? AND key = ? ORDER BY time, writer"
    for connection in (database.reading, database._writing):
        compiled = []
        for kind in "tmb" * 10:
            connection.execute(sql, (1, kind, "x")).fetchall()
            if connection.authorizer is None:  # it is asked whenever a statement is compiled
                connection.authorizer = lambda *about, to=compiled: to.append(about) or apsw.SQLITE_OK
                connection.execute(sql, (1, kind, "x")).fetchall()  # once more, because of the authorizer
                compiled.clear()
        assert compiled == []


async def test_concurrent_writes_share_commits(database):
    counter = CommitCounter(database)
    await asyncio.gather(*(database.write(insert(f"k{number:03}")) for number in range(200)))
    assert len(keys(database)) == 200
    assert counter.commits <= 3


async def test_a_write_that_raises_takes_only_itself_back(database):
    def failing(tx):
        insert("bad")(tx)
        raise ValueError("no")

    results = await asyncio.gather(
        database.write(insert("a")), database.write(failing), database.write(insert("b")), return_exceptions=True
    )
    assert isinstance(results[1], ValueError)
    assert keys(database) == ["a", "b"]


async def test_nobody_is_told_before_the_commit(database):
    told = []

    def operation(tx):
        tx.after_commit.append(lambda: told.append(keys(database)))
        insert("a")(tx)

    await database.write(operation)
    assert told == [["a"]]


async def test_a_failed_commit_is_an_error_for_all_of_its_group_and_leaves_nothing(database):
    counter = CommitCounter(database)
    undone, failed = [], []
    database.on_failed_commit.append(lambda: failed.append(True))

    def operation(tx):
        tx.after_rollback.append(lambda: undone.append(True))
        insert("a")(tx)

    counter.fail_next = True
    results = await asyncio.gather(database.write(operation), database.write(insert("b")), return_exceptions=True)
    assert [type(result) for result in results] == [StorageFailed, StorageFailed]
    assert (undone, failed, keys(database)) == ([True], [True], [])
    await database.write(insert("c"))
    assert keys(database) == ["c"]


async def test_a_reader_in_one_step_sees_one_state(database):
    await database.write(insert("a"))
    with database.one_step():
        assert keys(database) == ["a"]
        database._writing.execute("INSERT INTO meta (key, value) VALUES ('b', 1)")
        assert keys(database) == ["a"]
    assert keys(database) == ["a", "b"]


def test_durability_is_set_and_checked(database):
    for connection in (database._writing, database.reading):
        assert (connection.pragma("journal_mode"), connection.pragma("synchronous")) == ("wal", 2)


def test_a_disk_on_which_sqlite_cannot_keep_a_wal_is_refused():
    with pytest.raises(CannotStart) as refused:
        schema.configure(apsw.Connection(":memory:"))
    assert refused.value.reason == "durability-unsupported"


def test_a_database_of_a_newer_version_is_refused_untouched(tmp_path):
    connection = apsw.Connection(str(tmp_path / "test.sqlite"))
    connection.pragma("user_version", schema.VERSION + 1)
    with pytest.raises(CannotStart) as refused:
        Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    assert refused.value.reason == "schema-newer"
    assert connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone() == (0,)


def test_migrations_bring_an_older_database_forward_step_by_step(tmp_path, monkeypatch):
    Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    monkeypatch.setattr(
        schema, "MIGRATIONS", [*schema.MIGRATIONS, ("CREATE TABLE later (x) ; CREATE TABLE latest (x)", None)]
    )
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    database = Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    assert database.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'late%' ORDER BY name") == [
        ("later",),
        ("latest",),
    ]


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    monkeypatch.setattr(
        schema, "MIGRATIONS", [*schema.MIGRATIONS, ("CREATE TABLE later (x); CREATE TABLE meta (x)", None)]
    )
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(apsw.SQLError):
        Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    connection = apsw.Connection(str(tmp_path / "test.sqlite"))
    assert connection.pragma("user_version") == schema.VERSION - 1
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'later'").fetchone() is None


def test_an_older_database_learns_what_its_manifests_name(tmp_path, monkeypatch):
    """Else everything that was there before an upgrade would look unused."""
    image = images.image()
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        older.setattr(schema, "VERSION", 1)
        connection = Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())._writing
    for digest, body in ((image.digest, image.body), ("sha256:" + "0" * 64, b"of a later version")):
        connection.execute("INSERT INTO manifests (digest, body) VALUES (?, ?)", (digest, body))
        connection.execute(
            "INSERT INTO facts VALUES (1, 'm', ?, 1, 1, ?, '', ?, 10, x'00')", (digest, len(body), image.media_type)
        )
    database = Database(SystemDisk(tmp_path), "test.sqlite", WrongSizesIgnored())
    named = {sha256(blob) for blob in image.blobs}
    assert {
        part for (part,) in database.rows("SELECT digest FROM descriptors WHERE manifest = ?", (image.digest,))
    } == named
    assert unreadable_manifest(database) is None, "facts of no document are nobody's"
    assert database.rows("SELECT digest FROM descriptors WHERE digest NOT LIKE 'sha256%'") == [("?",)]


async def test_what_follows_a_commit_and_fails_keeps_nobody_waiting(database):
    told = []

    def operation(tx):
        tx.after_commit.append(lambda: 1 / 0)
        tx.after_commit.append(lambda: told.append(True))
        insert("a")(tx)
        return "done"

    assert await asyncio.wait_for(database.write(operation), 5) == "done"
    assert told == [True]
    await asyncio.wait_for(database.write(insert("b")), 5)


async def test_a_commit_that_fails_unexpectedly_is_an_error_for_its_group(database, monkeypatch):
    async def broken(*_):
        raise RuntimeError("cannot schedule new futures after shutdown")

    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patched:
        patched.setattr(loop, "run_in_executor", broken)
        with pytest.raises(StorageFailed):
            await asyncio.wait_for(database.write(insert("a")), 5)
    assert keys(database) == []
    await asyncio.wait_for(database.write(insert("b")), 5)
    assert keys(database) == ["b"]


async def test_commits_do_not_wait_behind_what_others_have_the_executor_do(database):
    """Hashing of uploads kept all of its threads busy, and every write of everybody waited."""
    release, loop = threading.Event(), asyncio.get_running_loop()
    jobs = [loop.run_in_executor(None, release.wait) for _ in range(100)]
    try:
        await asyncio.wait_for(database.write(insert("a")), 5)
    finally:
        release.set()
        await asyncio.gather(*jobs)
    assert keys(database) == ["a"]


async def test_one_step_sees_one_commit_also_within_a_larger_one(database):
    with database.one_step():
        before = keys(database)
        with database.one_step():
            assert keys(database) == before
        asyncio.get_running_loop().call_soon(lambda: None)
        Database.row(database, "SELECT 1")
        other = database._writing
        other.execute("INSERT INTO meta (key, value) VALUES ('late', 1)")
        assert keys(database) == before
    assert keys(database) == ["late"]


async def test_a_group_of_many_requests_commits_in_the_name_of_none(database):
    seen = []

    def operation(tx):
        seen.append(CURRENT.get())

    CURRENT.set("one-request")
    await database.write(operation)
    assert (seen, CURRENT.get()) == ([""], "one-request")


async def test_a_long_read_aside_keeps_nobody_waiting_and_sees_what_is_committed(database):
    await database.write(insert("a"))
    others_went_on = threading.Event()

    def count(connection):
        assert others_went_on.wait(5)
        return connection.execute("SELECT COUNT(*) FROM meta").fetchone()[0]

    counting = asyncio.create_task(database.read_aside(count))
    await asyncio.wait_for(database.write(insert("b")), 5)
    others_went_on.set()
    assert await counting == 2
    assert not database.reading.in_transaction


async def test_writes_need_no_temporary_directory(tmp_path):
    """As in a container whose root file system is read-only. A statement that may fail in its middle keeps a journal of
    its own."""
    files = NowhereElse()
    database = Database(DiskAlone(tmp_path), "test.sqlite", WrongSizesIgnored())
    numbers = "WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT 20000)"
    await database.write(lambda tx: tx.execute(f"{numbers} INSERT INTO meta (key, value) SELECT 'k' || n, 1 FROM n"))
    await database.write(lambda tx: tx.execute("UPDATE OR REPLACE meta SET key = key || 'x'"))
    assert len(keys(database)) >= 20000
    await database.close()
    files.unregister()

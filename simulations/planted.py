"""Bugs that are put into the registry from outside, to see that the checkers see them.

Each replaces a function or takes away a protection for the time of a run; the registry itself knows nothing of it. With
each stands what brings it to light: the faults, and within how many seeds.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import crdt.frame
import registry.catalog.documents as documents_module
import registry.cluster.fetch as fetch_module
import registry.cluster.gossip as gossip_module
import registry.http.peers as peers_module
from crdt.delta import encode_delta
from crdt.errors import Malformed
from crdt.gate import admit
from registry.blobs.checks import Checks
from registry.blobs.ingest import Ingest
from registry.blobs.store import BlobStore, content_path
from registry.blobs.uploads import Uploads
from registry.catalog import forks, schema
from registry.catalog.catalog import Catalog
from registry.catalog.database import Database
from registry.catalog.documents import Documents
from registry.catalog.queries import Queries
from registry.cluster.cluster import Cluster
from registry.cluster.confirmations import Confirmations
from registry.cluster.contents import Contents
from registry.cluster.gossip import Gossip
from registry.cluster.sync import Sync
from simulations.run import Outcome, Plan, drawn_plan, run


@dataclass(frozen=True)
class Planted:
    """A bug, and what brings it to light."""

    name: str
    plant: Callable[[], AbstractContextManager[Any]]
    faults: tuple[str, ...]
    within: int
    """Seeds, beginning with 0, within which it is caught."""
    sites: tuple[str, ...] = ("eu", "eu", "us")
    chosen: tuple[tuple[str, Any], ...] = ()
    """What else is chosen of the plan."""

    def plan(self, seed: int) -> Plan:
        chosen = {"operations": 12, "between_sites_s": 0.0} | dict(self.chosen)
        return drawn_plan(seed, faults=self.faults, sites=self.sites, **chosen)

    def hunt(self) -> tuple[int, Outcome] | None:
        """The first seed that catches it, and how; None where none does."""
        for seed in range(self.within):
            with self.plant():
                outcome = run(self.plan(seed))
            if outcome.violations:
                return seed, outcome
        return None


def _nothing(*arguments: Any, **named: Any) -> None:
    return None


async def _nothing_async(*arguments: Any, **named: Any) -> None:
    return None


# The disk


def _content_not_synced() -> AbstractContextManager[Any]:
    async def only_flushed(self: Ingest) -> None:
        await self.flush()

    return patch.object(Ingest, "sync", only_flushed)


def _directory_not_synced() -> AbstractContextManager[Any]:
    async def only_renamed(self: BlobStore, path: str, digest: Any) -> None:
        self.disk.rename(path, content_path(digest))

    return patch.object(BlobStore, "publish", only_renamed)


@contextlib.contextmanager
def _database_not_synced() -> Iterator[None]:
    configure = schema.configure

    def careless(connection: Any) -> None:
        configure(connection)
        connection.pragma("synchronous", "off")

    with patch.object(schema, "configure", careless):
        yield


def _row_before_file() -> AbstractContextManager[Any]:
    """The catalog says that content is here before it is in its place."""
    publish = Uploads._publish

    async def hasty(self: Uploads, session: Any, digest: Any) -> Any:
        store_publish, moves = self._store.publish, []

        async def later(path: str, digest: Any) -> None:
            moves.append((path, digest))

        with patch.object(self._store, "publish", later):
            change = await publish(self, session, digest)
        for path, at in moves:
            await store_publish(path, at)
        return change

    return patch.object(Uploads, "_publish", hasty)


def _size_before_bytes() -> AbstractContextManager[Any]:
    """An upload's row counts bytes that are not durable, and nobody compares them with what is there."""
    from registry.blobs.uploads import _Session

    prepare = _Session._prepare

    def trusting(self: Any) -> Any:
        row = self._row
        if row is None:
            return prepare(self)
        file = self._store.disk.open(self.path, append=True)
        checks = Checks()
        checks.update(file.pread(0, row.size).ljust(row.size, b"\0"))
        return Ingest(self._store.disk, file, checks)

    stack = contextlib.ExitStack()
    stack.enter_context(_content_not_synced())
    stack.enter_context(patch.object(_Session, "_prepare", trusting))
    return stack


# Commits


def _told_before_commit() -> AbstractContextManager[Any]:
    """Frames leave before the commit."""
    write = Documents.write

    def hasty(self: Documents, tx: Any, *arguments: Any, **named: Any) -> Any:
        change = write(self, tx, *arguments, **named)
        tx.after_commit.pop()
        self.on_change(change)
        return change

    return patch.object(Documents, "write", hasty)


def _answered_before_commit() -> AbstractContextManager[Any]:
    """Whoever writes is told before the disk has it."""
    run_operation = Database._run

    def hasty(self: Database, operation: Any, future: Any, transactions: Any, results: Any) -> None:
        run_operation(self, operation, future, transactions, results)
        if results and results[-1][0] is future and not future.done():
            future.set_result(results[-1][1])

    return patch.object(Database, "_run", hasty)


def _failure_taken_for_success() -> AbstractContextManager[Any]:
    """A commit that failed is answered as if it had not."""
    fail = Database._fail

    def forgiving(self: Database, group: Any, transactions: Any, error: Exception) -> None:
        from crdt.change import Change

        for _, future in group:
            if not future.done():
                future.set_result(Change("repository/app", 1, 0, {}, b"", bytes(16), 0, ()))
        fail(self, group, transactions, error)

    return patch.object(Database, "_fail", forgiving)


def _writer_used_again() -> AbstractContextManager[Any]:
    """Every start writes under the same writer, and forks are not healed."""

    def same(self: Catalog) -> int:
        return int(self.instance_id[:13], 16)

    def register(self: Documents, tx: Any) -> None:
        tx.execute("INSERT OR IGNORE INTO writers (writer, instance) VALUES (?, ?)", (self.writer, self._instance))
        self._registered = True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Catalog, "_drawn_writer", same))
    stack.enter_context(patch.object(Documents, "_register", register))
    stack.enter_context(patch.object(forks, "heal", _nothing))
    return stack


# Documents


def _delete_without_marker() -> AbstractContextManager[Any]:
    """A delete adds nothing to the state vector."""

    def pure(writer: int, clock: int, texts: Any, deleted: Any) -> bytes:
        if texts:
            return encode_delta(writer, clock, texts, deleted)
        whole = encode_delta(writer, clock, ["t\0x\0y\0" + "0" * 16 + "\0" + f"{writer:x}"], deleted)
        return bytes([0]) + whole[_structs_end(whole) :]

    def _structs_end(update: bytes) -> int:
        from crdt.delta import decode_delta

        for at in range(1, len(update)):
            try:
                if not decode_delta(bytes([0]) + update[at:]).spans:
                    return at
            except Exception:
                continue
        raise AssertionError("an update has a part that says what it deletes")

    return patch.object(documents_module, "encode_delta", pure)


def _gate_off() -> AbstractContextManager[Any]:
    """Changes are applied whatever is missing before them."""

    def always(vector: Any, delta: Any, needs: Any) -> Any:
        ends = {writer: first + length for writer, (first, length) in delta.spans.items()}
        return vector | {writer: max(end, vector.get(writer, 0)) for writer, end in ends.items()}

    return patch.object(documents_module, "admit", always)


def _what_was_seen_ignored() -> AbstractContextManager[Any]:
    """Only the writer's own earlier entries count as missing."""

    def own_only(vector: Any, delta: Any, needs: Any) -> Any:
        kept = delta._replace(deleted={})
        return admit(vector, kept, {})

    return patch.object(documents_module, "admit", own_only)


def _push_split() -> AbstractContextManager[Any]:
    """A push is two operations: the tag, and what it stands on."""
    write = Documents.write

    def split(self: Documents, tx: Any, name: str, deleted: Any, facts: Any, bodies: Any = ()) -> Any:
        tags = [fact for fact in facts if fact.kind == "t"]
        others = [fact for fact in facts if fact.kind != "t"]
        if not tags or not others:
            return write(self, tx, name, deleted, facts, bodies)
        write(self, tx, name, deleted, tags)
        return write(self, tx, name, [], others, bodies)

    return patch.object(Documents, "write", split)


def _emptied_document_dropped() -> AbstractContextManager[Any]:
    record = Documents._record

    def forgetful(self: Documents, tx: Any, name: str, row: Any, *rest: Any) -> Any:
        answer = record(self, tx, name, row, *rest)
        if tx.row("SELECT facts FROM documents WHERE id = ?", (row.id,))[0] == 0:
            for table in ("vectors", "log", "snapshots"):
                tx.execute(f"DELETE FROM {table} WHERE document = ?", (row.id,))
            tx.execute("DELETE FROM documents WHERE id = ?", (row.id,))
        return answer

    return patch.object(Documents, "_record", forgetful)


def _conflicts_not_noted() -> AbstractContextManager[Any]:
    import registry.catalog.view as view

    return patch.object(view, "_note_conflict", _nothing)


def _deletes_not_shown() -> AbstractContextManager[Any]:
    """The view keeps what another instance has deleted."""
    from registry.catalog.view import update_view

    def keeping(tx: Any, document: int, delta: Any, vector: Any) -> Any:
        return update_view(tx, document, delta._replace(deleted={}) if len(delta.added) == 0 else delta, vector)

    return patch.object(documents_module, "update_view", keeping)


# The network


def _mac_unchecked() -> AbstractContextManager[Any]:
    def trusting(data: bytes, keys: Any) -> Any:
        head = crdt.frame._HEADER
        if len(data) < head.size + crdt.frame.MAC_SIZE:
            raise Malformed("too short")
        _, kind, _, sender, start, sequence = head.unpack_from(data)
        return crdt.frame.Frame(kind, sender, start, sequence, data[head.size : -crdt.frame.MAC_SIZE])

    return patch.object(gossip_module, "unseal", trusting)


def _request_mac_unchecked() -> AbstractContextManager[Any]:
    return patch.object(peers_module, "is_mac", lambda said, computed: True)


def _digest_unchecked_on_fetch() -> AbstractContextManager[Any]:
    """Fetched content is kept whatever it is."""

    class Agreeing(str):
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = str.__hash__

    class Careless(Checks):
        def digest(self) -> Any:
            return Agreeing(super().digest())

    return patch.object(fetch_module, "Checks", Careless)


def _reads_unchecked() -> AbstractContextManager[Any]:
    """What is on the disk is served as it is."""
    return patch.object(Contents, "_is_older", lambda self, checked_ms, bound_ms: False)


def _site_not_waited_for() -> AbstractContextManager[Any]:
    return patch.object(Confirmations, "wait", _nothing_async)


def _confirmed_before_commit() -> AbstractContextManager[Any]:
    """Members confirm what they have received, not what they have committed."""
    receive, applied = Gossip._receive_change, Gossip._applied

    async def hasty(self: Gossip, frame: Any, sender: str) -> None:
        applied(self, frame)
        await receive(self, frame, sender)

    def unseen(self: Any, start: int, sequence: int) -> bool:
        return False

    from registry.cluster.members import Progress

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Gossip, "_receive_change", hasty))
    stack.enter_context(patch.object(Progress, "seen", unseen))
    return stack


def _lookups_that_miss() -> AbstractContextManager[Any]:
    """Two of every five lookups of a tag find nothing."""
    look, turns = Queries.manifest_by_tag, itertools.count(1)

    def forgetful(self: Queries, repository: Any, tag: str) -> Any:
        return look(self, repository, tag) if next(turns) % 5 > 1 else None

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Queries, "manifest_by_tag", forgetful))
    stack.enter_context(patch.object(Cluster, "learn_for_miss", _nothing_async))
    return stack


def _no_catching_up() -> AbstractContextManager[Any]:
    async def never(self: Sync) -> None:
        await asyncio.Event().wait()

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Sync, "run", never))
    stack.enter_context(patch.object(Sync, "document_is_due", _nothing))
    stack.enter_context(patch.object(Cluster, "_look_again", _nothing))
    stack.enter_context(patch.object(Cluster, "_meet", _nothing))
    return stack


def _reached_though_it_failed() -> AbstractContextManager[Any]:
    """A round of catching up counts as done when it has failed."""
    original = Sync._catch_up

    async def hopeful(self: Sync, member: Any) -> bool:
        commit, start = member.beat.commit, member.beat.start
        self._note_reached(member, commit, member.beat.changes, start)
        return await original(self, member)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Sync, "_catch_up", hopeful))
    stack.enter_context(patch.object(Sync, "_audit_is_due", lambda self, member: False))
    return stack


def _twin_ignored() -> AbstractContextManager[Any]:
    return patch.object(Cluster, "twin_seen", _nothing)


_CROWDED = (("operations", 20), ("fault_s", 4.0), ("clients", 4))

PLANTED = [
    Planted("content not synced", _content_not_synced, ("power-cut-at-answer",), 6),
    Planted("directory not synced", _directory_not_synced, ("power-cut-at-answer",), 10),
    Planted("database not synced", _database_not_synced, ("power-cut-at-answer",), 10),
    Planted("row before file", _row_before_file, ("power-cut-at-call", "kill-at-call", "power-cut-at-frame"), 30),
    Planted("size before bytes", _size_before_bytes, ("power-cut-at-call", "power-cut-at-answer"), 30),
    Planted("told before commit", _told_before_commit, ("power-cut-at-frame", "eio"), 15),
    Planted("answered before commit", _answered_before_commit, ("power-cut-at-answer", "eio", "power-cut-at-call"), 15),
    Planted("failure taken for success", _failure_taken_for_success, ("eio", "enospc"), 10),
    Planted("writer used again", _writer_used_again, ("backup",), 15),
    Planted("delete without marker", _delete_without_marker, ("loss",), 6),
    Planted("gate off", _gate_off, ("reorder", "loss"), 15),
    Planted("what was seen ignored", _what_was_seen_ignored, ("one-way", "reorder"), 40, chosen=_CROWDED),
    Planted("push split", _push_split, (), 3),
    Planted("emptied document dropped", _emptied_document_dropped, ("loss", "partition"), 40),
    Planted("conflicts not noted", _conflicts_not_noted, ("partition",), 30, ("eu", "us"), _CROWDED),
    Planted("deletes not shown", _deletes_not_shown, (), 15),
    Planted("MAC unchecked", _mac_unchecked, ("forged-frames",), 3),
    Planted("request MAC unchecked", _request_mac_unchecked, ("forged-requests",), 5),
    Planted("digest unchecked on fetch", _digest_unchecked_on_fetch, ("flipped-bit",), 40),
    Planted("reads unchecked", _reads_unchecked, ("flipped-bit",), 20),
    Planted("site not waited for", _site_not_waited_for, (), 15, ("eu", "eu")),
    Planted("confirmed before commit", _confirmed_before_commit, (), 15, ("eu", "eu"), (("executor_s", 0.03),)),
    Planted("lookups that miss", _lookups_that_miss, (), 20),
    Planted("no catching up", _no_catching_up, ("loss", "absence"), 6),
    Planted("reached though it failed", _reached_though_it_failed, ("partition", "loss", "reset"), 40),
    Planted("twin ignored", _twin_ignored, ("clone", "stalled-redis", "partition"), 40),
]

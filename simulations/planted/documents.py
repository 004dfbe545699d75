"""Bugs in documents and the view."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import registry.catalog.documents as documents_module
from crdt.delta import Delta, decode_delta, encode_own, own_delta
from crdt.gate import admit
from registry.catalog.documents import Documents
from registry.catalog.replica import DocumentReplica
from registry.catalog.view import Read, update_view
from simulations.planted.bug import nothing, together


def delete_without_marker() -> AbstractContextManager[Any]:
    """A delete adds nothing to the state vector."""

    def pure(writer: int, clock: int, texts: Any, deleted: Any) -> Delta:
        marked = own_delta(writer, clock, texts, deleted)
        return marked if texts else marked._replace(spans={}, deleted=own_delta(writer, clock, ["x"], deleted).deleted)

    def encoded(delta: Delta) -> bytes:
        if delta.spans:
            return encode_own(delta)
        whole = encode_own(delta._replace(spans={1: (0, 1)}))
        return bytes([0]) + whole[_structs_end(whole) :]

    def _structs_end(update: bytes) -> int:
        for at in range(1, len(update)):
            try:
                if not decode_delta(bytes([0]) + update[at:]).spans:
                    return at
            except Exception:
                continue
        raise AssertionError("an update has a part that says what it deletes")

    return together(
        patch.object(documents_module, "own_delta", pure), patch.object(documents_module, "encode_own", encoded)
    )


def gate_off() -> AbstractContextManager[Any]:
    """Changes are applied whatever is missing before them."""

    def always(vector: Any, delta: Any, needs: Any) -> Any:
        ends = {writer: first + length for writer, (first, length) in delta.spans.items()}
        return vector | {writer: max(end, vector.get(writer, 0)) for writer, end in ends.items()}

    return patch.object(documents_module, "admit", always)


def what_was_seen_ignored() -> AbstractContextManager[Any]:
    """Only the writer's own earlier entries count as missing."""

    def own_only(vector: Any, delta: Any, needs: Any) -> Any:
        kept = delta._replace(deleted={})
        return admit(vector, kept, {})

    return patch.object(documents_module, "admit", own_only)


def push_split() -> AbstractContextManager[Any]:
    """A push is two operations: the tag, and what it stands on."""
    write = Documents.write_in_steps

    def split(
        self: Documents, tx: Any, name: str, deleted: Any, facts: Any, bodies: Any = (), writer: Any = None
    ) -> Any:
        tags = [fact for fact in facts if fact.kind == "t"]
        others = [fact for fact in facts if fact.kind != "t"]
        if not tags or not others:
            return (yield from write(self, tx, name, deleted, facts, bodies, writer))
        yield from write(self, tx, name, deleted, tags, (), writer)
        return (yield from write(self, tx, name, [], others, bodies, writer))

    return patch.object(Documents, "write_in_steps", split)


def emptied_document_dropped() -> AbstractContextManager[Any]:
    record = Documents._record

    def forgetful(self: Documents, tx: Any, name: str, row: Any, *rest: Any) -> Any:
        answer = yield from record(self, tx, name, row, *rest)
        if tx.row("SELECT facts FROM documents WHERE id = ?", (row.id,))[0] == 0:
            for table in ("vectors", "log", "snapshots"):
                tx.execute(f"DELETE FROM {table} WHERE document = ?", (row.id,))
            tx.execute("DELETE FROM documents WHERE id = ?", (row.id,))
        return answer

    return patch.object(Documents, "_record", forgetful)


def snapshot_of_too_much() -> AbstractContextManager[Any]:
    """A snapshot takes the place of the whole log, that which came after it was read too."""
    store = DocumentReplica.store_snapshot

    def greedy(tx: Any, compaction: Any, data: bytes) -> None:
        store(tx, compaction, data)
        tx.execute("DELETE FROM log WHERE document = ?", (compaction.document,))

    return patch.object(DocumentReplica, "store_snapshot", staticmethod(greedy))


def conflicts_not_noted() -> AbstractContextManager[Any]:
    import registry.catalog.view as view

    return patch.object(view, "_note_conflict", nothing)


def deletes_not_shown() -> AbstractContextManager[Any]:
    """The view keeps what another instance has deleted."""

    def keeping(tx: Any, document: int, read: Read, vector: Any) -> Any:
        shown = read if read.facts else read._replace(delta=read.delta._replace(deleted={}))
        return update_view(tx, document, shown, vector)

    return patch.object(documents_module, "update_view", keeping)

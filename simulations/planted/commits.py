"""Bugs in how operations are committed and told."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from registry.catalog import forks
from registry.catalog.catalog import Catalog
from registry.catalog.database import Database
from registry.catalog.documents import Documents
from simulations.planted.bug import nothing


def told_before_commit() -> AbstractContextManager[Any]:
    """Frames leave before the commit."""
    write = Documents.write_in_steps

    def hasty(self: Documents, tx: Any, *arguments: Any, **named: Any) -> Any:
        change = yield from write(self, tx, *arguments, **named)
        tx.after_commit.pop()
        tx.sink.publish(change)
        return change

    return patch.object(Documents, "write_in_steps", hasty)


def answered_before_commit() -> AbstractContextManager[Any]:
    """A write is answered before the disk has it."""
    run_operation = Database._run

    async def hasty(self: Database, operation: Any, future: Any, transactions: Any, results: Any) -> None:
        await run_operation(self, operation, future, transactions, results)
        if results and results[-1][0] is future and not future.done():
            future.set_result(results[-1][1])

    return patch.object(Database, "_run", hasty)


def failure_taken_for_success() -> AbstractContextManager[Any]:
    """A commit that failed is answered as if it had not."""
    fail = Database._fail

    def forgiving(self: Database, group: Any, transactions: Any, error: Exception) -> None:
        from crdt.change import Change

        for _, future in group:
            if not future.done():
                future.set_result(Change("repository/app", 1, 0, {}, b"", bytes(16), 0, ()))
        fail(self, group, transactions, error)

    return patch.object(Database, "_fail", forgiving)


def writer_used_again() -> AbstractContextManager[Any]:
    """Every start writes under the same writer, and forks are not healed."""

    def same(self: Catalog) -> int:
        return int(self.instance_id[:13], 16)

    def register(self: Documents, tx: Any) -> None:
        tx.execute("INSERT OR IGNORE INTO writers (writer, instance) VALUES (?, ?)", (self.writer, self._instance))
        self._registered = True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Catalog, "_draw_writer", same))
    stack.enter_context(patch.object(Documents, "_register", register))
    stack.enter_context(patch.object(forks, "heal", nothing))
    return stack

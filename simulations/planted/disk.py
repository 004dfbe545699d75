"""Bugs in how content and uploads are kept."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from registry.blobs.checks import Checks
from registry.blobs.ingest import Ingest
from registry.blobs.store import BlobStore, content_path
from registry.blobs.uploads import Uploads
from registry.catalog import schema


def content_not_synced() -> AbstractContextManager[Any]:
    async def only_flushed(self: Ingest) -> None:
        await self.flush()

    return patch.object(Ingest, "sync", only_flushed)


def directory_not_synced() -> AbstractContextManager[Any]:
    async def only_renamed(self: BlobStore, path: str, digest: Any) -> None:
        self.disk.rename(path, content_path(digest))

    return patch.object(BlobStore, "publish", only_renamed)


@contextlib.contextmanager
def database_not_synced() -> Iterator[None]:
    configure = schema.configure

    def careless(connection: Any) -> None:
        configure(connection)
        connection.pragma("synchronous", "off")

    with patch.object(schema, "configure", careless):
        yield


def row_before_file() -> AbstractContextManager[Any]:
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


def size_before_bytes() -> AbstractContextManager[Any]:
    """An upload's row counts bytes that are not durable, and nobody compares them with what is there."""
    from registry.blobs.upload_session import Session

    prepare = Session._prepare

    def trusting(self: Any) -> Any:
        row = self._row
        if row is None:
            return prepare(self)
        file = self._store.disk.open(self.path, append=True)
        checks = Checks()
        checks.update(file.pread(0, row.size).ljust(row.size, b"\0"))
        return Ingest(self._store.disk, file, checks)

    stack = contextlib.ExitStack()
    stack.enter_context(content_not_synced())
    stack.enter_context(patch.object(Session, "_prepare", trusting))
    return stack

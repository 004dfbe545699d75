"""Bugs in how content and uploads are kept."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from registry.catalog import schema
from registry.storage.checks import ContentHashes
from registry.storage.ingest import Ingest
from registry.storage.store import BlobStore, content_path
from registry.storage.upload_commits import CatalogCommits, FinishedUpload


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
    publish = CatalogCommits.publish

    async def hasty(self: CatalogCommits, upload: FinishedUpload) -> Any:
        store_publish, moves = self._store.publish, []

        async def later(path: str, digest: Any) -> None:
            moves.append((path, digest))

        with patch.object(self._store, "publish", later):
            acknowledgement = await publish(self, upload)
        for path, at in moves:
            await store_publish(path, at)
        return acknowledgement

    return patch.object(CatalogCommits, "publish", hasty)


def size_before_bytes() -> AbstractContextManager[Any]:
    """An upload's row counts bytes that are not durable, and it is not compared with the file."""
    from registry.storage.upload_session import UploadSession

    open_file = UploadSession._open_file

    def unchecked(self: Any) -> Any:
        return open_file(self) if self._row is None else self._store.disk.open(self.path, append=True)

    async def trusting(self: Any, file: Any) -> Any:
        checks = ContentHashes()
        if self._row is not None:
            checks.update(file.pread(0, self._row.size).ljust(self._row.size, b"\0"))
        return checks

    stack = contextlib.ExitStack()
    stack.enter_context(content_not_synced())
    stack.enter_context(patch.object(UploadSession, "_open_file", unchecked))
    stack.enter_context(patch.object(UploadSession, "_checks", trusting))
    return stack

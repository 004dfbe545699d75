"""Bugs in what crosses between the processes of an instance."""

import asyncio
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from registry.runtime import commit_link
from registry.runtime.commit_link import CommitServer, Introduction, PublishUpload, RemoteCommits
from registry.storage import upload_commits
from registry.storage.store import UPLOADS
from registry.storage.upload_commits import CatalogCommits, FinishedUpload
from registry.storage.uploads import Uploads
from simulations.planted.bug import nothing, nothing_async, together


def _never(*arguments: Any) -> bool:
    return False


async def _never_async(*arguments: Any) -> bool:
    return False


def repeated_commit_taken_as_new() -> AbstractContextManager[Any]:
    """A commit that is sent again is made again: its file is not there any more."""
    return together(
        patch.object(upload_commits, "upload_has_ended", _never),
        patch.object(CatalogCommits, "_is_moved", _never_async),
    )


def answered_before_the_primary() -> AbstractContextManager[Any]:
    """A worker answers a push once it has sent the commit."""

    async def hasty(self: RemoteCommits, upload: FinishedUpload) -> Any:
        sending = asyncio.ensure_future(self._link.send(PublishUpload(upload)))
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())
        return nothing_async

    return patch.object(RemoteCommits, "publish", hasty)


def commits_not_sent_again() -> AbstractContextManager[Any]:
    """A worker that has lost its link does not send again what was not answered."""
    return patch.object(commit_link._Outbox, "put", nothing)


def files_of_other_homes_removed() -> AbstractContextManager[Any]:
    """A new process removes the files of all uploads whose home it is not."""
    prepare = Uploads.prepare

    def greedy(self: Uploads) -> None:
        prepare(self)
        for name in self._store.disk.names(UPLOADS):
            if not self._is_home(name):
                self._store.disk.remove(f"{UPLOADS}/{name}")

    return patch.object(Uploads, "prepare", greedy)


def predecessor_not_waited_for() -> AbstractContextManager[Any]:
    """The primary admits a worker at once, and takes commits of a dead one in its slot after that."""

    async def admit(self: CommitServer, introduced: Introduction) -> Any:
        return self._workers.setdefault(introduced.slot, commit_link._Worker(introduced.number))

    return patch.object(CommitServer, "_admit", admit)


def cancelled_upload_published() -> AbstractContextManager[Any]:
    """A commit that arrives after its upload was cancelled links the blob all the same."""
    return together(predecessor_not_waited_for(), patch.object(upload_commits, "held_size", lambda database, digest: 0))

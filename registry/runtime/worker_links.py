"""The primary's end of the links to its workers: what they relay, what they commit, and what they report."""

from collections.abc import Awaitable
from contextlib import AbstractContextManager

from starlette.types import ASGIApp

from registry.instance import Instance
from registry.runtime.commit_link import CommitServer, Notes
from registry.runtime.frames import Link, LinkSource
from registry.runtime.links import RELAY
from registry.runtime.relay import CUT_OFF_TIMEOUT_S, RelayServer

LAST_COMMITS_S = 0.5
"""Time for the commits of uploads that workers have cut off: what has arrived of them is kept."""


class WorkerLinks:
    """All links of workers to the primary of a started instance."""

    def __init__(self, instance: Instance, app: ASGIApp, source: LinkSource) -> None:
        """Begins to take links. `app` answers what is relayed."""
        self._instance = instance
        self._relayed = RelayServer(app)
        self._commits = CommitServer(
            instance.upload_commits, self, self._take_notes, instance.cluster.site_lease.note_waiting_worker
        )
        self._source = source
        source.start(self._on_link)

    def _on_link(self, kind: bytes, link: Awaitable[Link]) -> None:
        (self._relayed if kind == RELAY else self._commits).serve(link)

    def _take_notes(self, notes: Notes) -> None:
        instance = self._instance
        instance.traffic.add(notes.traffic)
        instance.traffic.cut_off += notes.cut_off
        instance.refusals.counts.update(notes.refused)
        instance.take_worker_notes(notes.used, notes.corrupt, notes.credentials)

    async def await_readiness(self) -> None:
        """Wait until the instance answers clients."""
        await self._instance.cluster.answers_clients.wait()

    def writing(self) -> AbstractContextManager[None]:
        """Count a write of a worker. Raises Leaving."""
        return self._instance.cluster.decommission.writing()

    async def finish(self, until: float) -> None:
        """Wait until no worker needs this process any more, up to a time of the loop and a moment for what is cut off
        then."""
        await self._relayed.finish(until, self._instance.config.drain_s)
        await self._commits.finish(until + CUT_OFF_TIMEOUT_S + LAST_COMMITS_S)
        self._source.close()
        self._relayed.close()
        await self._commits.close()

"""Draining: an instance ends in order, within the time before it would be killed.

On a signal to end, the instance stops being ready at once. Uploads and requests under way go on for `drain_s` together.
The instance listens while uploads are active, so that uploads that began here are finished here. After
`ACCEPT_UPLOADS_S` it begins no more uploads, since under constant pushes there would always be one; a balancer that
ignores readiness then tries the next instance. Requests that do not end in time are aborted: an upload is answered 503
and its bytes are kept, a response that has begun breaks off. The process ends at most `EXIT_TIMEOUT_S` later, so that
it is not killed while it writes.
"""

import asyncio
from collections.abc import Callable

from registry.instance import Instance
from registry.runtime.server import Server
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord")

POLL_INTERVAL_S = 0.2
ACCEPT_UPLOADS_S = 5.0
"""Time for which new uploads are still begun: until a balancer that probes every two seconds knows that this
instance is not ready. Without it clients would see the 503. At most half of the drain."""
EXIT_TIMEOUT_S = 3.0
"""Time that the process takes to end after `drain_s`, at most: 1.4 s alone, and 2.1 s with workers, of which workers
have 2 s after the listener has closed; the rest is for a slow machine."""


class Drain:
    """The end of one instance; a second signal waits for nothing."""

    def __init__(self, instance: Instance, servers: list[Server], on_closing: Callable[[], None]) -> None:
        self._instance = instance
        self._servers = servers
        self._on_closing = on_closing
        self._waiting: asyncio.Task[None] | None = None
        self.finishes_until = 0.0
        """The loop time until which requests may go on; in the past where nothing is waited for."""

    def begin(self, why: str) -> None:
        """Begin to drain, or end at once if a drain is under way. `why` names the cause in the log."""
        if self._waiting is not None:
            log.warning(LogEvent.DRAIN_SKIPPED, "ending without waiting for requests", by=why)
            self._waiting.cancel()
            self._close(force=True)
            return
        drain_s = self._instance.config.drain_s
        self._instance.drain.draining = True
        log.info(
            LogEvent.DRAIN_STARTED,
            "ending: %(requests)d requests are under way; they and uploads may go on for %(drain_s)g s (--drain-s); "
            "what stops this instance must wait %(ending_s)g s before it kills it",
            requests=self._instance.traffic.under_way + self._instance.shared.usage.requests,
            drain_s=drain_s,
            ending_s=drain_s + EXIT_TIMEOUT_S,
            by=why,
        )
        self._waiting = asyncio.create_task(self._wait(drain_s))

    async def _wait(self, drain_s: float) -> None:
        """Both waits share the time there is."""
        loop = asyncio.get_running_loop()
        until = loop.time() + drain_s
        begins_until = until - drain_s + min(ACCEPT_UPLOADS_S, drain_s / 2)
        while loop.time() < until and self._instance.uploads.at_work:
            self._instance.drain.begins_uploads = loop.time() < begins_until
            await asyncio.sleep(min(POLL_INTERVAL_S, until - loop.time()))
        for server in self._servers:
            server.finish_by(until, drain_s)
        clock = self._instance.clock
        self._instance.drain.finishes_until_s = clock.steady_s() + until - loop.time()
        self.finishes_until = until
        self._close()

    def _close(self, force: bool = False) -> None:
        self._on_closing()
        for server in self._servers:
            server.force_exit = force
            server.should_exit = True

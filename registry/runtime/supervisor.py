"""The supervisor of one primary and its workers.

It binds the sockets, holds the lock and forks the others. It never runs an event loop, opens the catalog or starts a
thread, so that it can fork safely at any time. When the primary dies, a new process takes its place at once, as after a
restart, while the workers go on; a worker that dies is replaced too. When the primary ends in order, all end; when no
primary can start, all end after a minute. When the supervisor is killed, the kernel kills the others.
"""

import contextlib
import ctypes
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from registry.adapters.clock import SystemClock
from registry.config import Config
from registry.errors import CannotStart
from registry.runtime.certificates import InstanceTls
from registry.runtime.connections import ConnectionCounts
from registry.runtime.deaths import PRIMARY, WORKER, Deaths
from registry.runtime.links import Mailboxes
from registry.runtime.primary import Sockets, Workers, run_primary
from registry.runtime.signals import END, FROM_OUTSIDE, RELOAD
from registry.runtime.worker import WorkerPlace, run_worker
from registry.shared_state import SharedState
from registry.storage.upload_homes import PRIMARY_SLOT
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.workers")

CANNOT_START = 2
POLL_INTERVAL_S = 0.05
SHORT_LIFE_S = 5.0
MAX_BACKOFF_S = 5.0
EXIT_TIMEOUT_S = 2.0
"""Time that a child has to end by itself when the drain is over."""
PRIMARY_TIMEOUT_S = 60.0
"""Time for which a primary that cannot start is tried again, where the catalog exists."""
_SIGNALS = {*FROM_OUTSIDE, signal.SIGCHLD, signal.SIGALRM}
_PR_SET_PDEATHSIG = 1
_STARTED, _ANSWERING, _CLOSING = b"S", b"A", b"C"


@dataclass
class _Process:
    """A process, or the slot of one that is not running."""

    name: str
    run: Callable[[], int]
    slot: int = PRIMARY_SLOT
    pid: int = 0
    started_at: float = 0.0
    pause_s: float = 0.0
    due_at: float = 0.0
    end_requested: bool = False
    """True once the process was signalled to end."""


class _PrimaryLink:
    """The primary's link to its supervisor (`primary.SupervisorLink`)."""

    def __init__(self, report: Callable[[bytes], None], deaths: Deaths) -> None:
        self.started = partial(report, _STARTED)
        self.answering = partial(report, _ANSWERING)
        self.closing = partial(report, _CLOSING)
        self.deaths = deaths.counts


class Supervisor:
    """The supervisor of one instance. `run` returns the exit status."""

    def __init__(
        self, config: Config, public: socket.socket, internal: socket.socket | None, tls: InstanceTls, count: int
    ) -> None:
        self._config = config
        self._tls = tls
        shared = SharedState.of(count, SystemClock())
        self._workers_share = Workers(Mailboxes(count), ConnectionCounts(count), shared)
        self._report_reader, self._report_writer = os.pipe()
        os.set_blocking(self._report_reader, False)
        self._sockets = Sockets(public, internal)
        self._deaths = Deaths()
        link = _PrimaryLink(self._report, self._deaths)
        self._primary = _Process(
            "the primary",
            lambda: run_primary(config, self._sockets, (END,), link, tls, self._workers_share, self._has_answered),
        )
        self._workers = [
            _Process("a worker", partial(self._run_worker, number), slot=number) for number in range(1, count)
        ]
        self._has_catalog = False
        self._has_answered = False
        """True once a primary has answered clients. Workers start then, since they ask no member what they may lack."""
        self._closing_at: float | None = None
        """The time at which the primary stopped listening."""
        self._ending_since: float | None = None
        self._was_signalled = False
        """True if a signal has come that ends all."""
        self._kills_at_once = False
        """True if processes are killed rather than ended in order."""
        self._without_primary_since: float | None = None
        self._status: int | None = None
        """The exit status of the primary that ended in order or could not start."""

    def run(self) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while self._status is None or any(child.pid for child in self._workers):
            self._begin_due()
            # Not sigtimedwait: Python's makes signals up when we are stopped meanwhile, and go on.
            signal.setitimer(signal.ITIMER_REAL, POLL_INTERVAL_S if self._is_waiting() else MAX_BACKOFF_S)
            received = signal.sigwait(_SIGNALS)
            if received == RELOAD and self._tls:
                self._reload()
            elif received in FROM_OUTSIDE:
                self._end()
            self._read_reports()
            self._reap()
            if self._closing_at is not None or self._status is not None:
                self._end_workers()
        return self._status

    def _is_waiting(self) -> bool:
        children = [self._primary, *self._workers]
        return self._ending_since is not None or any(not child.pid for child in children)

    def _begin_due(self) -> None:
        for child in (self._primary, *(self._workers if self._has_answered else ())):
            if not child.pid and time.monotonic() >= child.due_at and self._ending_since is None:
                self._tls.catch_up()
                child.started_at = time.monotonic()
                child.pid = _fork(child.run, self._config.log_format == "json")

    def _reload(self) -> None:
        """Have all processes read the files of TLS again."""
        self._tls.reload()
        for child in (self._primary, *self._workers):
            if child.pid:
                os.kill(child.pid, RELOAD)

    def _report(self, what: bytes) -> None:
        """In the primary: report an event. The signal makes the supervisor read it at once."""
        os.write(self._report_writer, what)
        os.kill(os.getppid(), signal.SIGCHLD)

    def _read_reports(self) -> None:
        """Read the events that primaries have reported since the last time."""
        end_requested = b""
        with contextlib.suppress(BlockingIOError):
            end_requested = os.read(self._report_reader, 16)
        if _STARTED in end_requested:
            self._without_primary_since = None
            self._has_catalog = True
        self._has_answered |= _ANSWERING in end_requested
        if _CLOSING in end_requested:
            self._closing_at = self._closing_at or time.monotonic()
            self._ending_since = self._ending_since or self._closing_at
            self._close_sockets()

    def _close_sockets(self) -> None:
        """Close the listening sockets: clients are refused once no process listens any more."""
        for listening in (self._sockets.public, self._sockets.internal):
            if listening is not None:
                listening.close()

    def _run_worker(self, slot: int) -> int:
        """In a worker."""
        if self._sockets.internal is not None:
            self._sockets.internal.close()
        share = self._workers_share
        slot_of = share.shared.slot(slot)
        place = WorkerPlace(slot_of, self._sockets.public, share.mailboxes, share.counts, share.shared, self._tls)
        return run_worker(self._config, place)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in (self._primary, *self._workers):
                if child.pid == pid:
                    self._workers_share.shared.usage.clear(child.slot)
                    self._workers_share.counts.set(child.slot, math.inf)
                    self._on_ended(child, os.waitstatus_to_exitcode(status))
                    child.pid = 0

    def _on_ended(self, child: _Process, code: int) -> None:
        """Handle the end of a process. A process that dies soon after its start is restarted after a pause that
        grows."""
        if child is self._primary and self._is_over(code):
            self._status = max(code, 0)
            return
        if self._ending_since is not None or self._status is not None:
            return
        lived_s = time.monotonic() - child.started_at
        child.pause_s = 0.0 if lived_s > SHORT_LIFE_S else min(child.pause_s * 2 or POLL_INTERVAL_S, MAX_BACKOFF_S)
        child.due_at = time.monotonic() + child.pause_s
        self._deaths.count(PRIMARY if child is self._primary else WORKER)
        how, number = ("signal", -code) if code < 0 else ("status", code)
        log.error(
            LogEvent.PROCESS_DIED,
            f"%(process)s (process %(pid)s) has died: {how} %({how})d; another process takes its place",
            process=child.name,
            pid=child.pid,
            **{how: number},
        )

    def _is_over(self, code: int) -> bool:
        """True if all end with this primary."""
        if code == 0 or self._ending_since is not None:
            return True
        now = time.monotonic()
        self._without_primary_since = self._without_primary_since or now
        return code == CANNOT_START and (not self._has_catalog or now > self._without_primary_since + PRIMARY_TIMEOUT_S)

    def _end(self) -> None:
        """End the primary in order, and all processes with it. A second call kills."""
        self._kills_at_once, self._was_signalled = self._was_signalled, True
        self._ending_since = self._ending_since or time.monotonic()
        if self._primary.pid:
            os.kill(self._primary.pid, END)
        elif self._status is None:
            self._status = 0

    def _end_workers(self) -> None:
        """End the workers. They may finish responses for as long as the primary could."""
        since = self._ending_since = self._ending_since or time.monotonic()
        until = max(since + self._config.drain_s, (self._closing_at or since) + EXIT_TIMEOUT_S)
        at_once = self._kills_at_once or time.monotonic() > until
        for child in self._workers:
            if child.pid and (at_once or not child.end_requested):
                child.end_requested = True
                os.kill(child.pid, signal.SIGKILL if at_once else END)


def _fork(run: Callable[[], int], logs_json: bool) -> int:
    """Fork a child that ends when `run` returns, and return its process id. The child dies with its parent, and
    ignores signals from outside."""
    parent = os.getpid()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for name in FROM_OUTSIDE:
            signal.signal(name, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if os.getppid() == parent:
            code = run()
    except CannotStart as error:
        if logs_json:
            EventLog("concord").error(LogEvent.START_FAILED, "%(problem)s", problem=error, reason=error.reason)
        else:
            print(f"concord: {error}", file=sys.stderr)
        code = CANNOT_START
    except BaseException:
        log.exception(LogEvent.PROCESS_FAILED, "a process has failed")
    finally:
        sys.stderr.flush()
        os._exit(code)

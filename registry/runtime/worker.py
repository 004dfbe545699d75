"""A worker: a process that serves clients beside the primary (`runtime.worker_service`), on sockets and signals."""

import asyncio
import socket
from dataclasses import dataclass

import uvloop

from registry.adapters.clock import SystemClock
from registry.adapters.disk import SystemDisk
from registry.config import Config
from registry.event_loop.now import now_s
from registry.event_loop.supervised import run_supervised
from registry.runtime.certificates import InstanceTls
from registry.runtime.connections import ConnectionCounts
from registry.runtime.links import LinkListener, Mailboxes
from registry.runtime.server import Server
from registry.runtime.signals import END, RELOAD
from registry.runtime.worker_service import WorkerService
from registry.shared_state import SharedState
from registry.storage.upload_homes import ProcessSlot

POLL_INTERVAL_S = 0.01


@dataclass(frozen=True)
class WorkerPlace:
    """The place of a worker: its slot, the listening socket, and the ways to the other processes."""

    slot: ProcessSlot
    public: socket.socket
    mailboxes: Mailboxes
    counts: ConnectionCounts
    shared: SharedState
    tls: InstanceTls


def run_worker(config: Config, place: WorkerPlace) -> int:
    """Serve until the signal END. Return the exit status."""
    uvloop.run(_serve(config, place))
    return 0


async def _serve(config: Config, place: WorkerPlace) -> None:
    clock = SystemClock()
    worker = WorkerService(config, place.slot, place.shared, SystemDisk(config.data), clock, place.mailboxes)
    server = Server(worker.app, place.counts, place.slot, place.tls.clients)
    listener = LinkListener(place.mailboxes.receiving[place.slot.number], clock)
    worker.start(listener)
    background = [
        asyncio.create_task(_release_primary(server, worker)),
        asyncio.create_task(run_supervised(place.tls.watch)),
    ]

    def end() -> None:
        until_s = place.shared.drain.finishes_until_s
        if until_s is not None:
            server.finish_by(now_s() + until_s - clock.steady_s(), config.drain_s)
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(END, end)
    if place.tls:
        asyncio.get_running_loop().add_signal_handler(RELOAD, place.tls.reload)
    await server.serve(sockets=[place.public])
    await worker.finish(server.finishes_until, server.drain_s)
    worker.close()
    for task in background:
        task.cancel()


async def _release_primary(server: Server, worker: WorkerService) -> None:
    """Let the primary end once no request here needs it any more: those that send content of this disk may go on."""
    await server.has_lingered.wait()
    while worker.needs_primary:
        await asyncio.sleep(POLL_INTERVAL_S)
    worker.release_primary()

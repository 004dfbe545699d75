"""Connections shared out among processes that listen on one socket."""

import asyncio
import contextlib
import math
import socket

import pytest

from registry.runtime import connections
from registry.runtime.connections import ConnectionCounts, OpenConnections, SharedListener
from registry.storage.upload_homes import PRIMARY_SLOT, ProcessSlot

PROCESSES = 3


class Process:
    """A process that takes connections and keeps them open."""

    def __init__(self, number, listening, counts):
        self.open = OpenConnections(counts, number)
        if number != PRIMARY_SLOT:
            counts.set(number, 0)
        add = self.open.add if number != PRIMARY_SLOT else lambda taken: set.add(self.open, taken)
        self.listener = SharedListener(listening.dup(), counts, ProcessSlot(number, PROCESSES), add)

    def close(self):
        self.listener.close()
        self.listener._socket.close()
        for connection in self.open:
            connection.close()


@contextlib.asynccontextmanager
async def processes():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        counts = ConnectionCounts(PROCESSES)
        running = [Process(number, listening, counts) for number in range(PROCESSES)]
        yield running, listening.getsockname(), counts
        for process in running:
            process.close()


async def connect(address, running, count):
    """Open connections until the processes have that many."""
    clients = [socket.create_connection(address) for _ in range(count)]
    async with asyncio.timeout(10):
        while sum(len(process.open) for process in running) < count:
            await asyncio.sleep(0.001)
    return clients


def close(clients):
    for client in clients:
        client.close()


async def test_workers_have_as_many_each_and_the_primary_none():
    async with processes() as (running, address, _):
        clients = []
        for number in range(1, 9):
            clients.append(socket.create_connection(address))
            async with asyncio.timeout(10):
                while sum(len(process.open) for process in running) < number:
                    await asyncio.sleep(0.001)
        assert [len(process.open) for process in running] == [0, 4, 4]
        close(clients)


async def test_a_process_that_hangs_has_its_connections_taken_by_others():
    async with processes() as (running, address, _):
        asyncio.get_running_loop().remove_reader(running[1].listener._socket.fileno())
        clients = await connect(address, running, 4)
        assert len(running[1].open) == 0 and len(running[2].open) == 4
        close(clients)


async def test_the_primary_takes_connections_where_no_worker_does():
    async with processes() as (running, address, counts):
        for worker in running[1:]:
            worker.listener.close()
        assert all(counts._cells[number] == math.inf for number in range(PROCESSES))
        clients = await connect(address, running, 3)
        assert len(running[PRIMARY_SLOT].open) == 3
        close(clients)


async def test_a_process_that_may_open_no_more_files_rests_before_it_tries_again(monkeypatch):
    monkeypatch.setattr(connections, "EXHAUSTED_PAUSE_S", 0.05)
    async with processes() as (running, address, _):
        for other in (running[0], running[2]):
            other.listener.close()
        listener, tries = running[1].listener, []

        class Exhausted:
            def __init__(self, real):
                self.fileno = real.fileno

            def accept(self):
                tries.append(1)
                raise OSError(24, "too many open files")

        real, listener._socket = listener._socket, Exhausted(listener._socket)
        client = socket.create_connection(address)
        await asyncio.sleep(0.3)
        assert 1 <= len(tries) <= 10
        listener._socket = real
        async with asyncio.timeout(10):
            while not running[1].open:
                await asyncio.sleep(0.001)
        close([client])


@pytest.mark.parametrize("others", [[math.inf, 2], [math.inf, 3]])
def test_the_process_with_the_fewest_takes_the_next_one(others):
    counts = ConnectionCounts(PROCESSES)
    for slot, count in enumerate([*others, 2]):
        counts.set(slot, count)
    assert counts.takes(2)
    assert counts.takes(1) == (others[1] <= 2)

"""Connections and notes on their way from readers to the owner."""

import asyncio
import contextlib
import os
import resource
import socket

import pytest

from registry.oci.names import Digest
from registry.runtime.handover import INLINE_BYTES, MAX_NOTES_PER_MESSAGE, Notes, Receiver, Sender, channel
from registry.storage.checked import Corruption
from registry.telemetry.counters import Counted
from registry.telemetry.events import LogEvent
from tests.support.logs import recorded
from tests.support.seams import StillClock


class Owner:
    """Takes what comes."""

    def __init__(self, receiving):
        self.connections: list[bytes] = []
        self.notes: list[Notes] = []
        self.wanted: list[bool] = []
        self.clock = StillClock()
        self.receiver = Receiver(receiving, self.notes.append, lambda: self.wanted.append(True), self.clock)

    def take(self, connection, data):
        connection.sendall(b"taken")
        connection.close()
        self.connections.append(data)


@pytest.fixture
def ends():
    receiving, sending = channel()
    with receiving, sending:
        yield Owner(receiving), Sender(sending)


def hand_over(sender, data):
    """A connection's other end, once this one has been passed on."""
    ours, theirs = socket.socketpair()
    with ours:
        return theirs if sender.hand_over(ours.fileno(), data) else None


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 1_000_000])
async def test_a_connection_arrives_with_what_has_come_on_it(ends, size):
    owner, sender = ends
    data = os.urandom(size)
    before = len(os.listdir("/proc/self/fd"))
    with hand_over(sender, data) as client:
        owner.receiver.start(owner.take)
        await until(lambda: owner.connections)
        assert (owner.connections, client.recv(10)) == ([data], b"taken")
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "no descriptor is left behind"


async def test_the_largest_notes_arrive_whole(ends):
    owner, sender = ends
    digests = [Digest(f"sha512:{number:0128x}") for number in range(MAX_NOTES_PER_MESSAGE)]
    traffic = [Counted("/v2/<name>/manifests/<reference>", "GET", {200: 2**40}, [2**40] * 13, 1e9, 2**60, 2**60)] * 20
    notes = Notes(traffic, 1, 2, digests, [Corruption(digest, 2**62) for digest in digests])
    assert sender.send_notes(notes)
    owner.receiver.start(owner.take)
    await until(lambda: owner.notes)
    assert owner.notes == [notes]


async def test_what_does_not_fit_waits_until_somebody_takes_it(ends):
    owner, sender = ends
    clients = []
    while (client := hand_over(sender, b"x")) is not None:
        clients.append(client)
        assert len(clients) < 10_000, "the queue is bounded"
    owner.receiver.start(owner.take)
    await until(lambda: len(owner.connections) == len(clients))
    again = hand_over(sender, b"y")
    assert again is not None
    await until(lambda: owner.connections[-1] == b"y")
    for client in [*clients, again]:
        assert client.recv(10) == b"taken"
        client.close()


async def test_what_was_sent_before_the_end_is_taken_and_nothing_after_it(ends):
    owner, sender = ends
    owner.receiver.start(owner.take)
    with hand_over(sender, b"before") as client:
        owner.receiver.close()
        assert (owner.connections, client.recv(10)) == ([b"before"], b"taken")
    assert hand_over(sender, b"after") is None
    assert sender.ended


async def test_what_an_owner_has_not_taken_is_its_successors(ends):
    owner, sender = ends
    with hand_over(sender, b"x") as client:
        successor = Owner(owner.receiver._socket)
        successor.receiver.start(successor.take)
        await until(lambda: successor.connections)
        assert client.recv(10) == b"taken"


@contextlib.contextmanager
def no_descriptor_left():
    """This process may open no more files, as long as this lasts."""
    before, opened = resource.getrlimit(resource.RLIMIT_NOFILE), []
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in opened:
            os.close(descriptor)


async def test_connections_lost_for_want_of_descriptors_are_one_line_a_minute(ends, caplog):
    owner, sender = ends
    for lost, lines in ((20, 1), (20, 1), (1, 2)):
        clients = [hand_over(sender, b"GET") for _ in range(lost)]
        with no_descriptor_left():
            while owner.receiver._receive_one():
                pass
        for client in clients:
            client.settimeout(5)
            assert client.recv(10) == b"", "nobody has it, and its client learns of that"
            client.close()
        assert len(recorded(caplog.records, LogEvent.CONNECTION_DROPPED)) == lines and not owner.connections
        owner.clock.at_ms += 31_000
    assert caplog.records[-1].fields == {"left_out_before": 39}

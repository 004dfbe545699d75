"""Links between processes, by way of mailboxes that outlive the processes behind them."""

import asyncio
import contextlib
import os
import resource

import pytest

import registry.runtime.links as links_module
from registry.runtime.commit_link import Introduction, PrimaryLink
from registry.runtime.links import RELAY, LinkListener, Mailboxes
from registry.telemetry.events import LogEvent
from tests.support.logs import recorded
from tests.support.seams import StillClock


class Process:
    """Takes the links that are opened to it."""

    def __init__(self, mailboxes, slot=0):
        self.links, self.clock = [], StillClock()
        self.listener = LinkListener(mailboxes.receiving[slot], self.clock)

    def start(self):
        self.listener.start(lambda kind, arriving: self.links.append((kind, asyncio.ensure_future(arriving))))
        return self

    async def link(self, at=0):
        await until(lambda: len(self.links) > at)
        return await self.links[at][1]


@pytest.fixture
def mailboxes():
    mailboxes = Mailboxes(2)
    yield mailboxes
    mailboxes.close()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_frames_arrive_whole_in_both_directions(mailboxes, size):
    process, payload = Process(mailboxes).start(), os.urandom(size)
    near = await mailboxes.connect(0, RELAY)
    far = await process.link()
    assert process.links[0][0] == RELAY
    for sender, receiver in ((near, far), (far, near)):
        sender.write(b"x", payload)
        sender.write(b"y")
        assert [await receiver.read(), await receiver.read()] == [(b"x", payload), (b"y", b"")]
    near.close()
    with pytest.raises(ConnectionError):
        await far.read()
    far.close()
    process.listener.close()


async def test_no_descriptor_is_left_behind(mailboxes):
    process = Process(mailboxes).start()
    before = open_files()
    for number in range(50):
        near = await mailboxes.connect(0, RELAY)
        far = await process.link(number)
        (near if number % 2 else far).abort()
        with pytest.raises(ConnectionError):
            await (far if number % 2 else near).read()
        near.close()
        far.close()
    await until(lambda: open_files() <= before)
    process.listener.close()


async def test_a_read_that_is_cancelled_loses_nothing(mailboxes):
    process = Process(mailboxes).start()
    near = await mailboxes.connect(0, RELAY)
    far = await process.link()
    near.write(b"x", bytes(3_000_000))
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.0001):
                assert await far.read() == (b"x", bytes(3_000_000))
                break
    else:
        assert await far.read() == (b"x", bytes(3_000_000))
    process.listener.close()


async def test_a_link_that_a_process_has_not_taken_is_its_successors(mailboxes):
    near = await mailboxes.connect(0, RELAY)
    near.write(b"x", b"before")
    successor = Process(mailboxes).start()
    assert await (await successor.link()).read() == (b"x", b"before")
    successor.listener.close()


async def test_a_full_mailbox_refuses_and_takes_links_again_later(mailboxes, monkeypatch):
    monkeypatch.setattr(links_module, "OPEN_TIMEOUT_S", 0.05)
    opened = []
    with pytest.raises(ConnectionError):
        while True:
            opened.append(await mailboxes.open(0, RELAY))
            assert len(opened) < 10_000, "the queue is bounded"
    process = Process(mailboxes).start()
    await until(lambda: len(process.links) == len(opened))
    (await mailboxes.open(0, RELAY)).close()
    await until(lambda: len(process.links) == len(opened) + 1)
    for socket in opened:
        socket.close()
    process.listener.close()
    for _, arriving in process.links:
        (await arriving).abort()


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


async def test_links_lost_for_want_of_descriptors_are_one_line_a_minute(mailboxes, caplog):
    process = Process(mailboxes)
    for lost, lines in ((20, 1), (20, 1), (1, 2)):
        ends = [await mailboxes.connect(0, RELAY) for _ in range(lost)]
        with no_descriptor_left():
            while process.listener._receive_one():
                pass
        for end in ends:
            with pytest.raises(ConnectionError):
                await end.read()
            end.close()
        assert len(recorded(caplog.records, LogEvent.LINK_DROPPED)) == lines and not process.links
        process.clock.at_ms += 31_000
    assert caplog.records[-1].fields == {"left_out_before": 39}


async def test_a_worker_without_descriptors_links_to_the_primary_once_it_has_some(mailboxes):
    """The task that keeps the link ended with an OSError, and the worker never committed anything again."""
    link = PrimaryLink(mailboxes, Introduction(1, 1))
    with no_descriptor_left():
        with pytest.raises(ConnectionError):
            await mailboxes.open(0, RELAY)
        running = asyncio.create_task(link.run())
        await asyncio.sleep(0.05)
        assert not running.done()
    process = Process(mailboxes).start()
    await process.link()
    running.cancel()
    process.listener.close()

"""The bound on what uploads have in memory, in virtual time: who waits, and what is written early."""

import asyncio

import pytest

from registry.errors import StorageFailed
from registry.storage import upload_memory
from registry.storage.checks import ContentHashes
from registry.storage.ingest import PIECE_BYTES, Ingest
from registry.storage.upload_memory import UploadMemory
from simulations.loop import VirtualLoop

MAX = 4 * PIECE_BYTES
WRITE_S = 0.01
SOME = bytes(PIECE_BYTES // 2)


@pytest.fixture
def play(monkeypatch):
    """Runs a coroutine in virtual time, with a bound of four pieces, on a disk that takes its time."""
    monkeypatch.setattr(upload_memory, "MAX_BYTES", MAX)
    loop = VirtualLoop()
    loop.executor_delay_s = lambda: WRITE_S
    yield loop.run_until_complete
    loop.close()


class File:
    """A file that keeps nothing, or fails."""

    fails = False

    def append(self, parts):
        if self.fails:
            raise OSError("no")

    def sync(self):
        pass

    def truncate(self, size):
        pass

    def close(self):
        pass


class Disk:
    def free(self):
        return 1 << 40


def ingest_in(memory):
    return Ingest(Disk(), File(), ContentHashes(), memory=memory)


async def receive(memory, pieces, pause_s=0.0):
    """Receive pieces of half a MiB with pauses behind them, and answer when the last one came."""
    ingest = ingest_in(memory)
    for _ in range(pieces):
        await memory.wait_for_room()
        await ingest.write(SOME)
        await asyncio.sleep(pause_s)
    ended = asyncio.get_running_loop().time()
    await ingest.sync()
    await ingest.close()
    return ended


def test_clients_that_stop_in_the_middle_of_a_piece_keep_nobody_waiting(play):
    """Twenty hold half a MiB each, which is all there is, and send nothing more."""

    async def scenario():
        memory = UploadMemory()
        stopped = [asyncio.ensure_future(receive(memory, 2, pause_s=1000)) for _ in range(20)]
        await asyncio.sleep(1)
        assert memory.held_bytes <= MAX
        ended = await receive(memory, 20)
        for task in stopped:
            await task
        return ended, memory.held_bytes

    ended, held = play(scenario())
    assert 1 < ended < 3 and held == 0


def test_many_that_send_as_fast_as_they_can_stay_within_the_bound_and_all_end(play):
    async def scenario():
        memory, most = UploadMemory(), 0
        tasks = [asyncio.ensure_future(receive(memory, 20)) for _ in range(50)]
        while not all(task.done() for task in tasks):
            most = max(most, memory.held_bytes)
            await asyncio.sleep(WRITE_S / 3)
        await asyncio.gather(*tasks)
        return most, memory.held_bytes

    most, held = play(scenario())
    assert MAX <= most <= MAX + PIECE_BYTES and held == 0


def test_who_waits_and_leaves_keeps_nobody_waiting(play):
    async def scenario():
        memory = UploadMemory()
        ingest = ingest_in(memory)
        memory.take(ingest, MAX)
        waiting = [asyncio.ensure_future(memory.wait_for_room()) for _ in range(3)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        await asyncio.sleep(1)
        assert len(memory._waiters) == 2
        memory.release(ingest, 1)
        waiting[1].cancel()  # in the moment in which it may go on
        await waiting[2]

    play(scenario())


def test_what_is_taken_back_closed_or_failed_is_counted_no_more(play):
    async def scenario():
        memory = UploadMemory()
        ingest = ingest_in(memory)
        point = ingest.rewind_point()
        await ingest.write(SOME)
        await ingest.rewind(point)
        assert memory.held_bytes == 0
        await ingest.write(SOME)
        ingest.write_out()
        await ingest.flush()
        assert memory.held_bytes == 0 and ingest.checks.size == len(SOME)
        ingest.file.fails = True
        await ingest.write(SOME)
        ingest.write_out()
        with pytest.raises(StorageFailed):
            await ingest.flush()
        await ingest.write(SOME)
        await ingest.close()
        return memory.held_bytes

    assert play(scenario()) == 0


def test_what_is_written_early_while_another_piece_is_waited_for_stays_in_order(play):
    """Whoever waits for a piece to be written finds another one behind it."""

    async def scenario():
        memory = UploadMemory()
        ingest = ingest_in(memory)
        appended = []
        ingest.file.append = lambda parts: appended.append(b"".join(parts))

        def write_early(_):
            ingest._parts, ingest._gathered = [b"b"], 1
            ingest.size += 1
            memory.take(ingest, 1)
            ingest.write_out()

        await ingest.write(b"a" * PIECE_BYTES)
        flushing = asyncio.ensure_future(ingest.flush())
        await asyncio.sleep(0)
        ingest._job.add_done_callback(write_early)
        await flushing
        ingest.rewind_point()
        await ingest.write(b"c")
        await ingest.flush()
        return b"".join(appended)[-2:], memory.held_bytes

    assert play(scenario()) == (b"bc", 0)


@pytest.mark.parametrize(("processes", "expected_mib"), [(1, 64), (2, 32), (3, 21), (8, 8), (17, 8)])
def test_processes_share_the_bound_and_each_has_enough_to_go_on(processes, expected_mib):
    """Each process had all of it, so that an instance of 17 had a GiB."""
    assert UploadMemory(processes).max_bytes // (1 << 20) == expected_mib

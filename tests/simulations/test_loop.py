"""Virtual time."""

import asyncio
import time

import pytest

from simulations.loop import Stuck, VirtualLoop
from simulations.process import Process, in_process


@pytest.fixture
def loop():
    made = VirtualLoop()
    yield made
    made.close()


def test_thirty_days_pass_in_a_moment(loop):
    begun = time.process_time()
    loop.run_until_complete(asyncio.sleep(30 * 86400))
    assert loop.time() == 30 * 86400
    assert time.process_time() - begun < 1


def test_timers_go_off_in_order_and_timeouts_work(loop):
    order = []

    async def work():
        async with asyncio.TaskGroup() as group:
            for delay in (3, 1, 2):
                group.create_task(after(delay))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()

    async def after(delay):
        await asyncio.sleep(delay)
        order.append((delay, loop.time()))

    loop.run_until_complete(work())
    assert order == [(1, 1), (2, 2), (3, 3)]
    assert loop.time() == 8


def test_jobs_of_the_executor_are_run_and_their_errors_told(loop):
    loop.executor_delay_s = lambda: 0.5
    assert loop.run_until_complete(loop.run_in_executor(None, lambda: 7)) == 7
    assert loop.time() == 0.5
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(loop.run_in_executor(None, lambda: 1 / 0))


def test_waiting_for_what_can_never_come_is_said(loop):
    with pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())


def test_what_is_dead_never_runs_again_and_what_is_paused_runs_later(loop):
    ran = []
    process = Process("i0", 1)

    async def tick():
        try:
            while True:
                await asyncio.sleep(1)
                ran.append(loop.time())
        finally:
            ran.append("tidied up")

    async def cluster():
        ticking = loop.create_task(tick(), context=in_process(process))
        await asyncio.sleep(2.5)
        process.paused = True
        await asyncio.sleep(2)
        process.resume(loop)
        await asyncio.sleep(1.2)
        process.end()
        await asyncio.sleep(10)
        return ticking

    loop.run_until_complete(cluster())
    assert ran == [1, 2, 4.5, 5.5]

"""Ending tasks that lose a cancellation."""

import asyncio

import pytest

from registry.event_loop.ending import end


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_end_a_task_that_loses_cancellations_has_ended(monkeypatch, lost):
    monkeypatch.setattr("registry.event_loop.ending.CANCEL_INTERVAL_S", 0.01)
    cancelled = 0

    async def go_on():
        nonlocal cancelled
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled > lost:
                    raise

    tasks = [asyncio.create_task(go_on()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end(tasks)
    assert all(task.done() for task in tasks)
    assert cancelled == lost + 1


async def test_end_a_task_that_fails_as_it_ends_is_no_failure_of_whoever_ends_it():
    async def fail():
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("on its way out")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end([task])
    assert isinstance(task.exception(), ValueError)

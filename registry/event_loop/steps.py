"""Work in bounded steps: generators that yield after each step, so that the event loop turns between two.

The size of a document, an index or a list is what others pushed. Work in proportion to it, done in one piece, would
stop every other request of the process for as long. A step is about 5 ms of processor time.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

F = TypeVar("F")
T = TypeVar("T")

Steps = Generator[None, None, T]

ROWS_PER_STEP = 256
"""Rows that one step reads or writes: 2 to 5 ms of processor time."""


def run_to_completion(steps: Steps[T]) -> T:
    """Return the result of work that is known to be small, without pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result


async def run_in_steps(steps: Steps[T]) -> T:
    """Return the result of work in steps. The loop turns between two steps."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
        await asyncio.sleep(0)


def convert_in_steps(convert: Callable[[F], T], entries: Sequence[F]) -> Steps[list[T]]:
    """Convert entries, ROWS_PER_STEP of them in each step."""
    converted: list[T] = []
    for at in range(0, len(entries), ROWS_PER_STEP):
        if at:
            yield
        converted += map(convert, entries[at : at + ROWS_PER_STEP])
    return converted

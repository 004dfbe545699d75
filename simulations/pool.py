"""Many runs, on all cores, each process playing one after the other."""

import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

A = TypeVar("A")
R = TypeVar("R")


def play_all(play: Callable[[A], R], arguments: Iterable[A], processes: int = 0) -> Iterator[R]:
    """The results in the order in which they are ready."""
    count = processes or os.cpu_count() or 1
    if count == 1:
        prepare()
        yield from map(play, arguments)
        return
    with multiprocessing.get_context("fork").Pool(count, prepare, maxtasksperchild=500) as pool:
        yield from pool.imap_unordered(play, arguments, chunksize=4)


def prepare() -> None:
    """Silence what is said when the collector finds coroutines and generators of killed instances."""
    sys.unraisablehook = _nothing
    logging.getLogger("concord").addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _nothing(unraisable: Any) -> None:
    pass

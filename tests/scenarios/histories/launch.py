"""The start of an instance under the harness: it takes its wall clock from the harness, and a planted bug.

The clock is a file that holds the clock's error in milliseconds, mapped into memory, so that all processes of an
instance see a change at once and reading it costs nothing. All code of the registry takes wall time from
`SystemClock.now_ms`. The monotonic clock is left alone, since it cannot be set on a real machine.
"""

import importlib
import mmap
import os
import struct
from pathlib import Path

from registry.adapters.clock import SystemClock

CLOCK_VARIABLE = "HISTORIES_CLOCK"
PLANTED_VARIABLE = "HISTORIES_PLANTED"
PREPARE = f"{__name__}:prepare"
_OFFSET = struct.Struct("<q")


class WrongClock:
    """The harness's end: how wrong an instance's clock is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_OFFSET.pack(0))

    def set(self, offset_ms: int) -> None:
        with self.path.open("r+b") as file:
            file.write(_OFFSET.pack(offset_ms))


def prepare() -> None:
    """In the new process, before anything of the registry runs."""
    path = os.environ.get(CLOCK_VARIABLE)
    if path:
        _follow(Path(path))
    planted = os.environ.get(PLANTED_VARIABLE)
    if planted:
        _plant(planted)


def _follow(path: Path) -> None:
    right = SystemClock.now_ms
    with path.open("rb") as file:
        shown = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)

    def now_ms(self: SystemClock) -> int:
        return max(right(self) + _OFFSET.unpack(shown[:])[0], 0)

    SystemClock.now_ms = now_ms  # type: ignore[method-assign]


def _plant(planted: str) -> None:
    """A bug of the simulations (`simulations.planted`), MODULE.FUNCTION, for the life of this process."""
    module, _, function = planted.partition(".")
    getattr(importlib.import_module(f"simulations.planted.{module}"), function)().__enter__()

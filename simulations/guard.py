"""Nothing in a run may look at a clock, chance, a thread or a socket of the machine: else a seed would not repeat."""

import contextlib
import os
import random
import secrets
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

WATCHED: list[tuple[Any, str]] = [
    (time, "time"),
    (time, "time_ns"),
    (time, "monotonic"),
    (time, "monotonic_ns"),
    (time, "sleep"),
    (os, "urandom"),
    (secrets, "token_bytes"),
    (secrets, "token_hex"),
    (random, "random"),
    (random, "randrange"),
    (random, "randint"),
    (random, "choice"),
    (random, "getrandbits"),
    (uuid, "uuid1"),
    (uuid, "uuid4"),
    (threading.Thread, "start"),
    (socket, "socket"),
    (socket, "create_connection"),
]
MAY = ("logging", "tempfile")
"""Modules that put a time into a record, or a random name to a scratch directory, which no run depends on."""


class Ambient(AssertionError):
    """Something went around the seams."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Raise Ambient in code that goes around the seams."""
    with contextlib.ExitStack() as stack:
        for owner, name in WATCHED:
            stack.enter_context(patch.object(owner, name, _refusing(owner, name, getattr(owner, name))))
        yield


def _refusing(owner: Any, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*arguments: Any, **named: Any) -> Any:
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if caller.partition(".")[0] in MAY:
            return original(*arguments, **named)
        raise Ambient(f"{caller} used {getattr(owner, '__name__', owner)}.{name}")

    return refuse

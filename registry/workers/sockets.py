"""What a server holds while it runs: the sockets it listens on, and the lock on its data directory."""

import contextlib
import errno
import fcntl
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from registry.errors import CannotStart

LOCK = "lock"
BACKLOG = 2048
PREDECESSOR_S = 2.0
"""How long somebody who was killed may take to be gone: the last of its processes end after the first."""
LOOK_AGAIN_S = 0.05


@contextlib.contextmanager
def listening(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A socket that listens. Raises CannotStart."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + PREDECESSOR_S
    while True:
        try:
            opened = socket.create_server((host.strip("[]"), port), family=family, backlog=BACKLOG)
            break
        except (OSError, OverflowError) as error:
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            if not in_use or time.monotonic() > deadline:
                reason = "it is in use" if in_use else str(error)
                raise CannotStart(f"cannot listen on {host}:{port}: {reason}") from None
        time.sleep(LOOK_AGAIN_S)
    with opened:
        yield opened


@contextlib.contextmanager
def locked(data: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the data directory for this process and those it forks. The kernel lets go when the last of them ends,
    however it does. Raises CannotStart."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CannotStart(f"the data directory {data} cannot be used: {error.strerror}") from None
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CannotStart(f"the data directory {data} is in use by another process") from None
        time.sleep(LOOK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)


def raise_file_limit() -> None:
    """Connections and files may be as many as the system lets this user have, not as few as a shell begins with."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

"""The resources of a running server: its listening sockets, and the lock on its data directory."""

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
PREDECESSOR_TIMEOUT_S = 2.0
"""Time that the processes of a killed predecessor may take to end: the last of them ends after the first."""
RETRY_INTERVAL_S = 0.05


@contextlib.contextmanager
def listening(address: tuple[str, int]) -> Iterator[socket.socket]:
    """A socket that listens; on `[::]` for IPv4 too, where the system can. Raises CannotStart."""
    host, port = address
    deadline = time.monotonic() + PREDECESSOR_TIMEOUT_S
    while True:
        try:
            opened = _listen(host.strip("[]"), port)
            break
        except (OSError, OverflowError) as error:
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            if not in_use or time.monotonic() > deadline:
                reason = "it is in use" if in_use else getattr(error, "strerror", None) or str(error)
                raise CannotStart(f"cannot listen on {host}:{port}: {reason}") from None
        time.sleep(RETRY_INTERVAL_S)
    with opened:
        yield opened


def _listen(host: str, port: int) -> socket.socket:
    """A name is listened on at its first IPv4 address, or at its first IPv6 address where it has no other."""
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)
    both = family == socket.AF_INET6 and place[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(place, family=family, backlog=BACKLOG, dualstack_ipv6=both)


@contextlib.contextmanager
def locked(data: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the data directory for this process and those it forks. The kernel releases the lock when the last of them
    ends, whatever ends it. Raises CannotStart."""
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
        time.sleep(RETRY_INTERVAL_S)
    try:
        yield
    finally:
        os.close(descriptor)


def raise_file_limit() -> None:
    """Raise the limit of open files to what the system allows this user. The limit of a shell is lower."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

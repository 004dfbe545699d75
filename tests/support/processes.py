"""The processes of one instance."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.server import Server, wait_until


def children(server: Server) -> list[int]:
    """The processes that a supervisor has begun, the oldest first: the owner, while none has died, and readers."""
    assert server.process is not None
    return children_of(server.process.pid)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def owner_of(server: Server) -> int:
    """The process that has opened the catalog for writing, which takes two connections. Waits for one."""

    def found() -> int:
        owners = [pid for pid in children(server) if _opened(pid) >= 2]
        return owners[0] if len(owners) == 1 else 0

    return wait_until(found)


def resident_kib(server: Server) -> int:
    """Return the memory that all processes of an instance take."""
    assert server.process is not None
    return sum(_resident_kib(pid) for pid in [server.process.pid, *children(server)])


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _opened(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            count += os.readlink(link).endswith("catalog.sqlite")
    return count


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_for_children(server: Server, count: int) -> list[int]:
    def all_there() -> list[int]:
        found = children(server)
        return found if len(found) == count else []

    return wait_until(all_there)

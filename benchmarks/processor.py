"""The processor time of a server that listens on an address of this machine, with all its processes."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def processor_s(address: str) -> dict[int, float]:
    """Return the processor time in seconds that each process of the server has used, by process id. The process that
    was started first is the first. Empty when the server is not this user's or not on this machine."""
    listening = _inodes(int(address.rpartition(":")[2]))
    roots = sorted(pid for pid in _pids() if listening & _sockets(pid))
    return {pid: _used_s(pid) for pid in roots}


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _inodes(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(pid: int) -> set[str]:
    try:
        return {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it has ended, or belongs to another user
        return set()


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS

"""Kills, and processes that hang."""

import random
import signal

from tests.scenarios.histories.faults.fired import Fired
from tests.scenarios.histories.members import Member, Members, signal_all


def _running(members: Members) -> list[Member]:
    return [member for member in members.all if not member.is_down]


def kill_primary(members: Members, drawn: random.Random) -> Fired | None:
    member = drawn.choice(_running(members) or [None])
    primary = member.processes()[0] if member else 0
    if member is None or not signal_all([primary] if primary else [], signal.SIGKILL):
        return None
    return Fired(f"primary of {member.number}", (member.site,))


def kill_worker(members: Members, drawn: random.Random) -> Fired | None:
    member = drawn.choice(_running(members) or [None])
    workers = member.processes()[1] if member else []
    if member is None or not workers or not signal_all([drawn.choice(workers)], signal.SIGKILL):
        return None
    return Fired(f"a worker of {member.number}", (member.site,))


def kill_all(members: Members, drawn: random.Random) -> Fired | None:
    """A whole instance, until it is started again."""
    running = _running(members)
    if len(running) < 2:
        return None
    member = drawn.choice(running)
    member.is_down = True
    member.server.kill()

    def start() -> None:
        member.server.start(wait=False)
        member.is_down = False

    return Fired(f"all of {member.number}", (member.site,), start)


def stop_primary(members: Members, drawn: random.Random) -> Fired | None:
    member = drawn.choice(_running(members) or [None])
    primary = member.processes()[0] if member else 0
    return _stopped(member, [primary] if primary else [], "primary") if member else None


def stop_worker(members: Members, drawn: random.Random) -> Fired | None:
    member = drawn.choice(_running(members) or [None])
    workers = member.processes()[1] if member else []
    return _stopped(member, [drawn.choice(workers)], "a worker") if member and workers else None


def stop_all(members: Members, drawn: random.Random) -> Fired | None:
    """All processes of an instance, as a virtual machine that is paused."""
    member = drawn.choice(_running(members) or [None])
    return _stopped(member, member.all_processes(), "all") if member else None


def _stopped(member: Member, pids: list[int], which: str) -> Fired | None:
    if any(is_stopped(pid) for pid in pids) or not signal_all(pids, signal.SIGSTOP):
        return None
    return Fired(f"{which} of {member.number}", (member.site,), lambda: _go_on(pids))


def _go_on(pids: list[int]) -> None:
    signal_all(pids, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False

"""Clocks that are wrong, and files that are damaged on the disk."""

import random
from pathlib import Path

from tests.scenarios.histories.faults.fired import Fired
from tests.scenarios.histories.members import Member, Members

OFFSETS_MS = (-86_400_000, -30_000, -3_000, -700, 0, 700, 3_000, 30_000, 86_400_000)


def clock(members: Members, drawn: random.Random) -> Fired | None:
    """A wall clock jumps: it is wrong by that from now on, or right again."""
    member = drawn.choice(members.all)
    offset_ms = drawn.choice(OFFSETS_MS)
    member.clock.set(offset_ms)
    return Fired(f"of {member.number} is wrong by {offset_ms} ms", (member.site,))


def corrupt(members: Members, drawn: random.Random) -> Fired | None:
    """A byte of a content file changes. The same content is damaged at one member only, ever, and only where another
    member has it whole: the registry repairs what another member holds, and nothing more."""
    member = drawn.choice(members.all)
    choices = [
        path
        for path in sorted(_contents(member))
        if path.name not in members.corrupted and any(_has(other, member, path) for other in members.all)
    ]
    if not choices:
        return None
    path = drawn.choice(choices)
    members.corrupted.add(path.name)
    try:
        with path.open("r+b") as file:
            at = drawn.randrange(max(path.stat().st_size, 1))
            file.seek(at)
            byte = file.read(1)
            if not byte:
                return None
            file.seek(at)
            file.write(bytes([byte[0] ^ 1 << drawn.randrange(8)]))
    except FileNotFoundError:  # collected meanwhile
        return None
    return Fired(f"{path.name[:12]} at {member.number}", (member.site,))


def _contents(member: Member) -> list[Path]:
    return [path for path in (member.server.data / "blobs").glob("sha*/??/*") if path.is_file()]


def _has(other: Member, member: Member, path: Path) -> bool:
    twin = other.server.data / path.relative_to(member.server.data)
    try:
        return other is not member and twin.is_file() and twin.stat().st_size == path.stat().st_size
    except FileNotFoundError:  # collected meanwhile
        return False

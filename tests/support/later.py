"""A later version, as far as tests need one: it understands a made-up kind of critical facts, acts on a header field
that is unknown here, and has a capability more."""

from collections.abc import Sequence

from crdt.fact import KINDS as KNOWN
from crdt.fact import Fact
from registry.capabilities import BITS, OWN, Abilities

KIND = "!made-up"
FIELD = 99
CAPABILITY = "made-up"


def later_fact(said: str, time: int, writer: int) -> Fact:
    """A critical fact of the made-up kind."""
    return Fact(KIND, f"{KIND}\0{said}\0{time:016x}\0{writer:x}", "", "", 0, time, writer)


def read_later(fields: Sequence[str], time: int, writer: int) -> Fact | None:
    return later_fact(fields[0], time, writer) if len(fields) == 1 else None


KINDS = {**KNOWN, KIND: read_later}
LATER = Abilities(tuple(sorted((*OWN.capabilities, CAPABILITY))), frozenset({FIELD}), KINDS, {**BITS, CAPABILITY: 9})


def become_later() -> None:
    """Make this process one of the later version. Called before it serves."""
    KNOWN.update(KINDS)  # type: ignore[attr-defined]  # the mapping is a dict, and the one that all use by default

"""A later version, as far as simulations and tests need one: it understands a made-up kind of critical facts, acts on a
header field that is unknown to this version, and has a capability more."""

from collections.abc import Sequence

from crdt.change import Change
from crdt.fact import Fact
from crdt.header import Field
from registry.capabilities import BITS, FACT_KINDS, OWN, Abilities

KIND = "!made-up"
FIELD, IGNORED_FIELD = 99, 98
CAPABILITY = "made-up"
REPOSITORY = "later"
DOCUMENT = f"repository/{REPOSITORY}"


def later_fact(said: str, time: int, writer: int) -> Fact:
    """A critical fact of the made-up kind."""
    return Fact(KIND, f"{KIND}\0{said}\0{time:016x}\0{writer:x}", "", "", 0, time, writer)


def _read_later(fields: Sequence[str], time: int, writer: int) -> Fact | None:
    return later_fact(fields[0], time, writer) if len(fields) == 1 else None


KINDS = {**FACT_KINDS, KIND: _read_later}


def fields_of(change: Change) -> tuple[Field, ...]:
    """Return the fields that the later version puts in the header of a change's frame."""
    if change.document == DOCUMENT:
        return (Field(FIELD, b"to be understood", critical=True),)
    return (Field(IGNORED_FIELD, b"of a later version"),)


LATER = Abilities(
    tuple(sorted((*OWN.capabilities, CAPABILITY))), fields_of, frozenset({FIELD}), KINDS, {**BITS, CAPABILITY: 9}
)

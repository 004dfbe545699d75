"""Capabilities: names for features that a version of Concord understands, as instances announce them to each other.

A capability is a short name for something that an instance can do and that others may have to know of before they rely
on it. Heartbeats, handshakes and sessions carry the whole list. Frames carry the capabilities that have a number, as
bits. A name that this version does not know is shown and has no effect. Once a release has used a name or a number, it
never stands for anything else.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from crdt.change import Change
from crdt.fact import KINDS, FactReader
from crdt.header import REVISIONS, Field, encode_bits
from registry.access import facts as access

MAX_CAPABILITIES = 64
MAX_NAME = 32

CRITICAL_FACTS = "critical-facts"
"""Serves nothing that depends on a document with critical facts that it does not understand."""
FRAME_FIELDS = "frame-fields"
"""Reads header fields of frames, and refuses a frame with a critical one that it does not understand."""

ACCESS = "access"
"""Understands the facts of access control, and enforces them."""

BITS: Mapping[str, int] = {CRITICAL_FACTS: 0, FRAME_FIELDS: 1, ACCESS: 2}
"""Capabilities that frames carry, each with its bit."""

FACT_KINDS: dict[str, FactReader] = {**KINDS, **access.KINDS}
"""The readers of facts that this version has, by kind of fact."""


class Abilities(NamedTuple):
    """The features that an instance understands. Simulations give some instances those of a later version."""

    capabilities: tuple[str, ...]
    """Names in the order in which messages carry them."""
    fields_of: Callable[[Change], tuple[Field, ...]]
    """Returns the header fields that the version adds to the frame of a change."""
    critical_fields: frozenset[int] = frozenset()
    """Header fields of frames that the instance acts on, so that a sender may mark them as critical."""
    kinds: Mapping[str, FactReader] = FACT_KINDS
    """The readers of facts, by kind of fact."""
    bits: Mapping[str, int] = BITS

    def as_bits(self) -> bytes:
        """Return the capabilities that frames carry."""
        return encode_bits(self.bits[name] for name in self.capabilities if name in self.bits)


def _no_fields(change: Change) -> tuple[Field, ...]:
    return ()


OWN = Abilities(tuple(sorted((ACCESS, CRITICAL_FACTS, FRAME_FIELDS))), _no_fields, frozenset({REVISIONS}))
"""The features that this version understands."""


def in_order(capabilities: Iterable[str]) -> tuple[str, ...]:
    """Return capabilities as they are shown and kept, whatever order a member has sent them in."""
    return tuple(sorted(set(capabilities)))

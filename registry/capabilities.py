"""What one version of Concord understands, and what it says of that to the others.

A capability is a short name for something that an instance can do and that others may have to know of before they rely
on it. Heartbeats, hellos and session handshakes carry the whole list; frames carry those that have a number, as bits.
Names that are unknown here are shown and have no effect. Names and numbers are never used for anything else once a
release has had them.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from crdt.fact import KINDS, FactReader
from crdt.header import encode_bits

MAX_CAPABILITIES = 64
MAX_NAME = 32

CRITICAL_FACTS = "critical-facts"
"""Serves nothing that depends on a document with critical facts that it does not understand."""
FRAME_FIELDS = "frame-fields"
"""Reads header fields of frames, and refuses a frame with a critical one that it does not understand."""

BITS: Mapping[str, int] = {CRITICAL_FACTS: 0, FRAME_FIELDS: 1}
"""Capabilities that frames carry, each with its bit."""


class Abilities(NamedTuple):
    """What an instance understands. The simulations give some instances those of a later version."""

    capabilities: tuple[str, ...]
    """In order, as they are sent."""
    critical_fields: frozenset[int] = frozenset()
    """Header fields of frames on which it acts, so that a sender may call them critical."""
    kinds: Mapping[str, FactReader] = KINDS
    """How it reads facts, by kind."""
    bits: Mapping[str, int] = BITS

    def as_bits(self) -> bytes:
        """Return the capabilities that frames carry."""
        return encode_bits(self.bits[name] for name in self.capabilities if name in self.bits)


OWN = Abilities(tuple(sorted((CRITICAL_FACTS, FRAME_FIELDS))))
"""What this version understands."""


def in_order(capabilities: Iterable[str]) -> tuple[str, ...]:
    """Return capabilities as they are shown and kept, whatever order a member has sent them in."""
    return tuple(sorted(set(capabilities)))

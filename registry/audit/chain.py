"""The chain of an audit log: lines of JSON, each with the hash of the line before."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

HASH_BYTES = 16
START = ""
"""The hash before the first line of all."""


class Head(NamedTuple):
    """The end of a chain."""

    number: int
    """The number of the last line; 0 where there is none."""
    hash: str
    """The hash of the last line."""


EMPTY = Head(0, START)


class BrokenChain(Exception):
    """A line that does not continue the chain. The message says which, and why."""


class _Place(msgspec.Struct):
    """The place of a line in its chain. Other fields are not read."""

    n: int
    previous: str


def hash_of(line: bytes) -> str:
    """Return the hash of a line without its end."""
    return blake3(line).hexdigest(HASH_BYTES)


def next_line(head: Head, fields: dict[str, Any]) -> tuple[bytes, Head]:
    """Return a line that continues a chain, without its end, and the new head."""
    number = head.number + 1
    line = msgspec.json.encode({"n": number, "previous": head.hash, **fields})
    return line, Head(number, hash_of(line))


def heads(lines: Iterable[bytes], before: Head | None = None) -> Iterator[Head]:
    """Yield the head after each line. `before` is the head that the first line continues; None where what came before
    is not kept any more. Raises BrokenChain."""
    head = before
    for line in lines:
        try:
            place = msgspec.json.decode(line, type=_Place)
        except msgspec.DecodeError:
            after = f" after line {head.number}" if head is not None else ""
            raise BrokenChain(f"a line{after} is no line of an audit log") from None
        if head is not None and place.n != head.number + 1:
            raise BrokenChain(f"line {place.n} follows line {head.number}")
        if head is not None and place.previous != head.hash:
            raise BrokenChain(f"line {place.n} does not continue line {head.number}: one of them was altered")
        head = Head(place.n, hash_of(line))
        yield head

"""Header fields of a frame: what versions to come say beside the payload, without another format.

    size      varint      bytes of all fields together; 0 where there are none
    each field, in ascending order of numbers, each number at most once:
      mark    1 byte      bit 7 is the critical bit; bits 0 to 6 are the field's number, 1 to 127
      size    varint      bytes of the value
      value

The header stands before the payload and under the frame's MAC. A version that does not know a field ignores it, unless
the sender has set the critical bit: then it must refuse the frame. (After the ancillary bit of PNG's chunks, the
optional bit of BGP's path attributes, RFC 4271 section 4.3, and the options of EDNS, RFC 6891.) The sender sets the bit
in each frame, not the format for each number: a field may become critical once an operator has said so.

A number is never used for anything else once a release has had it:

    1   capabilities of the sender, as a set of bits, see `encode_bits`
    2   revisions of other documents that the sender had seen, see `revisions`
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from crdt.errors import Malformed, NotUnderstood
from crdt.varint import read_bytes, write_bytes, write_varint

CAPABILITIES = 1
REVISIONS = 2

MAX_HEADER_BYTES = 4096
MAX_NUMBER = 127
MAX_BIT = 255
NO_FIELDS = b"\0"
"""The header of a frame without fields."""

_CRITICAL = 0x80
_CACHED = 256
"""Headers that are kept in both forms: those of one sender are mostly the same."""


class Field(NamedTuple):
    """One header field."""

    number: int
    value: bytes
    critical: bool = False


@lru_cache(_CACHED)
def encode_fields(fields: tuple[Field, ...]) -> bytes:
    """Return the header. Raises ValueError where a number is impossible or repeated, or the header too long."""
    out = bytearray()
    previous = 0
    for number, value, critical in sorted(fields):
        if not previous < number <= MAX_NUMBER:
            raise ValueError(f"invalid header field {number}: expected each number from 1 to {MAX_NUMBER} once")
        previous = number
        out.append(number | _CRITICAL if critical else number)
        write_bytes(out, value)
    if len(out) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(out)} bytes: expected at most {MAX_HEADER_BYTES}")
    size = bytearray()
    write_varint(size, len(out))
    return bytes(size + out)


def decode_fields(data: bytes, at: int) -> tuple[tuple[Field, ...], int]:
    """Return the fields of the header that begins at an offset, and the offset behind it. Raises Malformed."""
    header, at = read_bytes(data, at, MAX_HEADER_BYTES)
    return (_fields(header) if header else ()), at


@lru_cache(_CACHED)
def _fields(header: bytes) -> tuple[Field, ...]:
    fields = []
    at = previous = 0
    while at < len(header):
        mark = header[at]
        number = mark & ~_CRITICAL
        value, at = read_bytes(header, at + 1, MAX_HEADER_BYTES)
        if number <= previous:
            raise Malformed("header fields that are repeated or out of order")
        fields.append(Field(number, value, mark >= _CRITICAL))
        previous = number
    return tuple(fields)


def require_understood(fields: Iterable[Field], understood: Collection[int]) -> None:
    """Raise NotUnderstood for a critical field whose number is not among those that are understood."""
    for number, _, critical in fields:
        if critical and number not in understood:
            raise NotUnderstood(f"critical header field {number} is not understood by this version")


def find_field(fields: Iterable[Field], number: int) -> bytes | None:
    """Return the value of a field; None where the header has no such field."""
    return next((field.value for field in fields if field.number == number), None)


def encode_bits(numbers: Iterable[int]) -> bytes:
    """Return a set of small numbers as bits, the lowest first, without trailing zero bytes."""
    bits = 0
    for number in numbers:
        if not 0 <= number <= MAX_BIT:
            raise ValueError(f"invalid bit {number}: expected 0 to {MAX_BIT}")
        bits |= 1 << number
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def decode_bits(value: bytes) -> frozenset[int]:
    """Return the numbers of a set of bits. Bits above MAX_BIT are ignored."""
    bits = int.from_bytes(value[: (MAX_BIT + 1) // 8], "little")
    return frozenset(number for number in range(bits.bit_length()) if bits >> number & 1)

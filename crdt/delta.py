"""Updates of a document: encoding our own, and the strict check of everyone's.

The bytes are Yjs's update format, version 1. A document here has one root array for each writer, `w<writer in hex>`, to
which only that writer appends and from which anyone deletes, so our updates use a small part of the format, and
`decode_delta` allows nothing else. The check comes before pycrdt sees a byte, since crafted updates can make it crash,
panic or allocate gigabytes. It also yields the facts, so that they never have to be read back out of a document.

One update consists of:

    clients, in descending order
      each: a run of structs from one clock on; a struct is either strings (live facts) or a deleted length
      the first struct of a writer, at clock 0, names its root array; every other has the entry before it as origin
    delete set: for each writer, ranges of clocks
"""

from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import NamedTuple

from crdt.errors import Malformed
from crdt.fact import MAX_TEXT_BYTES, writer_of
from crdt.varint import read_byte, read_bytes, read_varint, write_bytes, write_varint
from crdt.vector import MAX_CLOCK, MAX_WRITER

_DELETED = 1
_STRINGS = 8
_HAS_ORIGIN = 0x80
_ROOT_BY_NAME = 1
_STRING = 119
_ONE_BYTE = 0x80
"""Lengths below this are varints of one byte."""

Range = tuple[int, int]
"""A first clock and a length."""


class Added(NamedTuple):
    """One fact that an update adds, with the identity under which it can be deleted."""

    writer: int
    clock: int
    text: str


class Delta(NamedTuple):
    """The content of an update, decoded."""

    spans: dict[int, Range]
    """For each writer, the clocks the update covers."""
    added: list[Added]
    deleted: dict[int, list[Range]]
    """For each writer, the clocks it deletes."""


def root_name(writer: int) -> str:
    """The name of the root array that `writer` appends to."""
    return f"w{writer:x}"


def own_delta(writer: int, clock: int, texts: Sequence[str], deleted: Iterable[tuple[int, int]]) -> Delta:
    """Return the delta of one operation: `writer`, whose next clock is `clock`, deletes some entries and appends facts.

    `deleted` holds the (writer, clock) of each deleted entry. An operation that appends nothing appends and deletes one
    empty entry, since a pure delete would not move the state vector and equal vectors would no longer mean equal facts.
    """
    doomed: dict[int, list[int]] = {}
    for owner, at in deleted:
        doomed.setdefault(owner, []).append(at)
    if not texts:
        doomed.setdefault(writer, []).append(clock)
    added = list(map(Added, repeat(writer), count(clock), texts))
    return Delta({writer: (clock, len(texts) or 1)}, added, {owner: _ranges(doomed[owner]) for owner in sorted(doomed)})


def _ranges(clocks: Iterable[int]) -> list[Range]:
    ranges: list[Range] = []
    for clock in sorted(set(clocks)):
        if ranges and sum(ranges[-1]) == clock:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((clock, 1))
    return ranges


def encode_delta(writer: int, clock: int, texts: Sequence[str], deleted: Iterable[tuple[int, int]]) -> bytes:
    """The update of one operation, see `own_delta`."""
    return encode_own(own_delta(writer, clock, texts, deleted))


def encode_own(delta: Delta) -> bytes:
    """The update of one operation, made by `own_delta`: equal, byte for byte, to what pycrdt makes of the same
    transaction."""
    ((writer, (clock, length)),) = delta.spans.items()
    out = bytearray((1, 1))
    write_varint(out, writer)
    write_varint(out, clock)
    out.append((_STRINGS if delta.added else _DELETED) | (_HAS_ORIGIN if clock else 0))
    if clock:
        write_varint(out, writer)
        write_varint(out, clock - 1)
    else:
        out.append(_ROOT_BY_NAME)
        write_bytes(out, root_name(writer).encode())
    write_varint(out, length)
    for _, _, text in delta.added:
        raw = text.encode()
        out.append(_STRING)
        if len(raw) < _ONE_BYTE:
            out.append(len(raw))
            out += raw
        else:
            write_bytes(out, raw)
    write_varint(out, len(delta.deleted))
    for owner, ranges in delta.deleted.items():
        write_varint(out, owner)
        write_varint(out, len(ranges))
        for first, length in ranges:
            write_varint(out, first)
            write_varint(out, length)
    return bytes(out)


def own_span(data: bytes) -> Range:
    """Return the clocks that an update made by `encode_own` covers, without reading what follows its first struct."""
    _, at = read_varint(data, 2)  # one client with one struct, and the writer
    clock, at = read_varint(data, at)
    info, at = read_byte(data, at)
    if info & _HAS_ORIGIN:
        _, at = read_varint(data, at)
        _, at = read_varint(data, at)
    else:
        _, at = read_byte(data, at)
        _, at = read_bytes(data, at, 16)
    entries, _ = read_varint(data, at)
    return clock, entries


def decode_delta(data: bytes) -> Delta:
    """Check an update and read what it says. Raises Malformed for anything our own updates do not consist of.

    The caller bounds the size of `data`; memory and time are linear in it.
    """
    spans: dict[int, Range] = {}
    added: list[Added] = []
    clients, at = read_varint(data, 0)
    previous = MAX_WRITER + 1
    for _ in range(clients):
        structs, at = read_varint(data, at)
        writer, at = read_varint(data, at)
        first, at = read_varint(data, at)
        if not structs or writer >= previous:
            raise Malformed("writers are repeated, out of order or without entries")
        previous = writer
        clock = first
        for _ in range(structs):
            clock, at = _read_struct(data, at, writer, clock, added)
        spans[writer] = (first, clock - first)
    deleted, at = _read_delete_set(data, at)
    if at != len(data):
        raise Malformed("bytes follow the update")
    return Delta(spans, added, deleted)


def _read_struct(data: bytes, at: int, writer: int, clock: int, added: list[Added]) -> tuple[int, int]:
    """Read one struct at `clock`; return the next clock and offset."""
    info, at = read_byte(data, at)
    content = info & ~_HAS_ORIGIN
    if clock:
        owner, at = read_varint(data, at)
        before, at = read_varint(data, at)
        if not info & _HAS_ORIGIN or owner != writer or before != clock - 1:
            raise Malformed("an entry does not follow its writer's previous one")
    else:
        by_name, at = read_byte(data, at)
        name, at = read_bytes(data, at, 16)
        if info & _HAS_ORIGIN or by_name != _ROOT_BY_NAME or name != root_name(writer).encode():
            raise Malformed("a writer's first entry is not in its own root array")
    count, at = read_varint(data, at)
    if not 0 < count <= MAX_CLOCK - clock:
        raise Malformed("an impossible number of entries")
    if content == _STRINGS:
        for entry in range(clock, clock + count):
            text, at = _read_text(data, at, writer)
            added.append(Added(writer, entry, text))
    elif content != _DELETED:
        raise Malformed("content of a kind that is never written")
    return clock + count, at


def _read_text(data: bytes, at: int, writer: int) -> tuple[str, int]:
    kind, at = read_byte(data, at)
    if kind != _STRING:
        raise Malformed("an entry that is no string")
    raw, at = read_bytes(data, at, MAX_TEXT_BYTES)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Malformed("an entry that is no UTF-8") from None
    if writer_of(text) != writer:
        raise Malformed("a fact that does not name its writer")
    return text, at


def _read_delete_set(data: bytes, at: int) -> tuple[dict[int, list[Range]], int]:
    deleted: dict[int, list[Range]] = {}
    count, at = read_varint(data, at)
    for _ in range(count):
        writer, at = read_varint(data, at)
        number, at = read_varint(data, at)
        if writer > MAX_WRITER or writer in deleted or not number:
            raise Malformed("the delete set repeats a writer or has no ranges for it")
        ranges = deleted[writer] = []
        free = 0
        for _ in range(number):
            first, at = read_varint(data, at)
            length, at = read_varint(data, at)
            if first < free or not 0 < length <= MAX_CLOCK - first:
                raise Malformed("ranges of the delete set are empty, out of order or overlap")
            free = first + length
            ranges.append((first, length))
    return deleted, at

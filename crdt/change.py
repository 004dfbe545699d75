"""A committed operation, as instances tell each other of it: the payload of a CHANGE frame.

document, writer, the clock its delta starts at, the state vector entries it needs, the delta, the state digest it
leads to, the sender's commit number, manifest bodies; numbers as varints, the rest with their lengths
"""

from typing import NamedTuple

from crdt.errors import Malformed
from crdt.frame import MAX_FRAME_BYTES
from crdt.trie import DIGEST_SIZE
from crdt.varint import read_bytes, read_varint, write_bytes, write_varint
from crdt.vector import MAX_CLOCK, MAX_WRITER, Vector, decode_vector, encode_vector

MAX_DELTA_BYTES = 64 * 1024
MAX_NAME_BYTES = 512
MAX_BODIES = 64


class Change(NamedTuple):
    """One committed operation on a document."""

    document: str
    writer: int
    clock: int
    """The clock its delta starts at."""
    needs: Vector
    """Entries of the state vector that changed since the writer's previous frame for this document: with `clock`, all
    that the operation may have seen."""
    delta: bytes
    """Empty when it did not fit: then this announces the change, and the receiver asks for a diff."""
    state_digest: bytes
    """The document's state digest after it, at the sender."""
    commit: int
    """The sender's commit number."""
    bodies: tuple[bytes, ...]
    """Manifest bodies that the receivers may lack."""


def encode_change(change: Change) -> bytes:
    out = bytearray()
    write_bytes(out, change.document.encode())
    write_varint(out, change.writer)
    write_varint(out, change.clock)
    write_bytes(out, encode_vector(change.needs))
    write_bytes(out, change.delta)
    write_bytes(out, change.state_digest)
    write_varint(out, change.commit)
    write_varint(out, len(change.bodies))
    for body in change.bodies:
        write_bytes(out, body)
    return bytes(out)


def decode_change(data: bytes) -> Change:
    """The inverse of `encode_change`. Raises Malformed; the delta itself is not looked into."""
    name, at = read_bytes(data, 0, MAX_NAME_BYTES)
    writer, at = read_varint(data, at)
    clock, at = read_varint(data, at)
    needs, at = read_bytes(data, at, MAX_FRAME_BYTES)
    delta, at = read_bytes(data, at, MAX_DELTA_BYTES)
    digest, at = read_bytes(data, at, DIGEST_SIZE)
    commit, at = read_varint(data, at)
    count, at = read_varint(data, at)
    if writer > MAX_WRITER or clock > MAX_CLOCK or count > MAX_BODIES:
        raise Malformed("a change with impossible numbers")
    bodies = []
    for _ in range(count):
        body, at = read_bytes(data, at, MAX_FRAME_BYTES)
        bodies.append(body)
    if at != len(data):
        raise Malformed("bytes follow a change")
    try:
        document = name.decode()
    except UnicodeDecodeError:
        raise Malformed("a document name that is no UTF-8") from None
    return Change(document, writer, clock, decode_vector(needs), delta, digest, commit, tuple(bodies))

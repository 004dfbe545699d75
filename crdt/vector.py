"""State vectors: for each writer, how many of its entries a replica has (its next clock).

Equal vectors mean equal facts, because every operation appends an entry of its own, a pure delete included (see
`delta.encode_delta`).
"""

from collections.abc import Mapping

from crdt.errors import Malformed
from crdt.varint import read_varint, write_varint

Vector = dict[int, int]

MAX_WRITER = 2**53 - 1
MAX_CLOCK = 2**31 - 1


def encode_vector(vector: Mapping[int, int]) -> bytes:
    """The vector in Yjs's binary form, writers in descending order."""
    out = bytearray()
    write_varint(out, len(vector))
    for writer in sorted(vector, reverse=True):
        write_varint(out, writer)
        write_varint(out, vector[writer])
    return bytes(out)


def decode_vector(data: bytes) -> Vector:
    """The inverse of `encode_vector`, for bytes from outside; any order of writers is accepted.

    Raises Malformed. The check matters: pycrdt allocates a gigabyte for a hostile five-byte vector.
    """
    count, at = read_varint(data, 0)
    vector: Vector = {}
    for _ in range(count):
        writer, at = read_varint(data, at)
        clock, at = read_varint(data, at)
        if writer > MAX_WRITER or clock > MAX_CLOCK or writer in vector:
            raise Malformed("a state vector names an impossible writer or clock")
        vector[writer] = clock
    if at != len(data):
        raise Malformed("bytes follow a state vector")
    return vector


def covers(vector: Mapping[int, int], needed: Mapping[int, int]) -> bool:
    """Return whether a replica at `vector` has everything that `needed` counts."""
    return all(vector.get(writer, 0) >= clock for writer, clock in needed.items())

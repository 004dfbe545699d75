"""Revisions of other documents in a frame's header: what its sender had seen when it made the change.

A change of one document may be right only together with another one: content is never to be served under rights that
are older than those its pusher had seen. So a frame names how far its sender was in those documents, and a receiver
that is not as far fetches their diffs first.

    for each document, in ascending order of names, each at most once:
      name      length and UTF-8
      vector    length and state vector: the entries that the receiver's vector must cover, all or those that matter
      digest    length, 0 or 16, and the state digest at the sender: where the receiver's is equal, nothing is to do
"""

from collections.abc import Iterable
from typing import NamedTuple

from crdt.change import MAX_NAME_BYTES
from crdt.errors import Malformed
from crdt.header import MAX_HEADER_BYTES
from crdt.trie import DIGEST_SIZE
from crdt.varint import read_bytes, write_bytes
from crdt.vector import Vector, decode_vector, encode_vector

MAX_REVISIONS = 16


class Revision(NamedTuple):
    """The state that a sender had reached in one document."""

    document: str
    vector: Vector
    digest: bytes = b""
    """Empty where it is not given."""


def encode_revisions(revisions: Iterable[Revision]) -> bytes:
    """Return the value of the header field. Its header bounds the size: `header.encode_fields`."""
    out = bytearray()
    for document, vector, digest in sorted(revisions, key=lambda revision: revision.document.encode()):
        write_bytes(out, document.encode())
        write_bytes(out, encode_vector(vector))
        write_bytes(out, digest)
    return bytes(out)


def decode_revisions(value: bytes) -> list[Revision]:
    """Return the revisions of a header field. Raises Malformed."""
    found: list[Revision] = []
    at, previous = 0, b""
    while at < len(value):
        name, at = read_bytes(value, at, MAX_NAME_BYTES)
        vector, at = read_bytes(value, at, MAX_HEADER_BYTES)
        digest, at = read_bytes(value, at, DIGEST_SIZE)
        if name <= previous or len(digest) not in (0, DIGEST_SIZE) or len(found) == MAX_REVISIONS:
            raise Malformed("revisions that are too many, out of order, or have an impossible name or digest")
        try:
            found.append(Revision(name.decode(), decode_vector(vector), digest))
        except UnicodeDecodeError:
            raise Malformed("a document name that is no UTF-8") from None
        previous = name
    return found

"""Frames: the authenticated messages on the bus.

    version   1 byte      an unknown one is refused
    kind      1 byte      an unknown one is authentic and ignored, so that a newer version may send more
    cluster   8 bytes     which cluster key signed; another cluster's frames on a shared bus end here
    sender    16 bytes    instance id
    start     8 bytes     when the sending process started; grows with every start
    sequence  8 bytes     counts the frames of that start
    payload   the rest
    MAC       32 bytes    keyed BLAKE3 over all before it

Whoever has the cluster key is a member and is trusted by the others; the MAC keeps everyone else out.
"""

import hmac
import struct
from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from crdt.errors import Malformed, Unauthentic
from crdt.trie import DIGEST_SIZE
from crdt.varint import read_bytes, read_varint, write_bytes, write_varint
from crdt.vector import MAX_CLOCK, MAX_WRITER, Vector, decode_vector, encode_vector

VERSION = 1
MAC_SIZE = 32
MAX_DELTA_BYTES = 64 * 1024
MAX_FRAME_BYTES = 256 * 1024
MAX_NAME_BYTES = 512
MAX_BODIES = 64

CHANGE = 1
HEARTBEAT = 2
CONFIRMATION = 3

_HEADER = struct.Struct(">BB8s16sQQ")


class ClusterKey:
    """What one cluster secret yields: the name of its cluster on the wire, and the key of its MACs."""

    def __init__(self, secret: str) -> None:
        self.cluster = blake3(secret.encode(), derive_key_context="concord 2026 cluster name").digest(8)
        self.mac_key = blake3(secret.encode(), derive_key_context="concord 2026 frames").digest()
        self.session_key = blake3(secret.encode(), derive_key_context="concord 2026 peer sessions").digest()
        self.upload_key = blake3(secret.encode(), derive_key_context="concord 2026 upload ids").digest()


class Frame(NamedTuple):
    """One message and who sent it."""

    kind: int
    sender: bytes
    start: int
    sequence: int
    payload: bytes


class Change(NamedTuple):
    """The payload of one committed operation on a document."""

    document: str
    writer: int
    clock: int
    """The clock its delta starts at."""
    needs: Vector
    """Entries of the state vector that changed since the writer's previous frame for this document: with `clock`, all
    that the operation may have seen."""
    delta: bytes
    """Empty when it did not fit: then this announces the change, and the receiver asks for a diff."""
    digest: bytes
    """The document's state digest after it, at the sender."""
    commit: int
    """The sender's commit number."""
    bodies: tuple[bytes, ...]
    """Manifest bodies that the receivers may lack."""


def seal(frame: Frame, key: ClusterKey) -> bytes:
    """The frame as bytes, signed."""
    head = _HEADER.pack(VERSION, frame.kind, key.cluster, frame.sender, frame.start, frame.sequence)
    signed = head + frame.payload
    return signed + blake3(signed, key=key.mac_key).digest()


def unseal(data: bytes, keys: Sequence[ClusterKey]) -> Frame:
    """The frame in `data`. Raises Malformed for what is no frame, Unauthentic for what no key of ours signed."""
    if not _HEADER.size + MAC_SIZE <= len(data) <= MAX_FRAME_BYTES:
        raise Malformed("a frame of an impossible size")
    version, kind, cluster, sender, start, sequence = _HEADER.unpack_from(data)
    if version != VERSION:
        raise Malformed(f"a frame of version {version}")
    signed, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
    for key in keys:
        if key.cluster == cluster and hmac.compare_digest(mac, blake3(signed, key=key.mac_key).digest()):
            return Frame(kind, sender, start, sequence, signed[_HEADER.size :])
    raise Unauthentic("a frame that no key of this cluster signed")


def encode_change(change: Change) -> bytes:
    out = bytearray()
    write_bytes(out, change.document.encode())
    write_varint(out, change.writer)
    write_varint(out, change.clock)
    write_bytes(out, encode_vector(change.needs))
    write_bytes(out, change.delta)
    write_bytes(out, change.digest)
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

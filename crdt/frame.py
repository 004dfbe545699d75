"""Frames: the authenticated messages on the bus.

    version      1 byte     an unknown one is refused
    kind         1 byte     an unknown one is authentic and ignored, so that a newer version may send more
    cluster      8 bytes    which cluster key authenticates it; another cluster's frames on a shared bus end here
    sender       16 bytes   instance id
    incarnation  8 bytes    drawn when the sending process started; grows with every start
    sequence     8 bytes    counts the frames of that incarnation
    header       its size and its fields, see `header`
    payload      the rest
    MAC          32 bytes   keyed BLAKE3 over all before it

Every process that has the cluster key is a member, and the others trust it. The MAC keeps all others out.
"""

import hmac
import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple

from blake3 import blake3

from crdt.errors import Malformed, Unauthentic
from crdt.header import NO_FIELDS, Field, decode_fields, encode_fields, require_understood

VERSION = 2
MAC_SIZE = 32
MAX_FRAME_BYTES = 256 * 1024

CHANGE = 1
HEARTBEAT = 2
ACKNOWLEDGEMENT = 3

_PREAMBLE = struct.Struct(">BB8s16sQQ")
_SMALLEST = _PREAMBLE.size + len(NO_FIELDS) + MAC_SIZE
_CLUSTER = slice(2, 10)


class FrameKey(NamedTuple):
    """The cluster name that frames carry, and the key that authenticates them."""

    cluster: bytes
    """8 bytes: the cluster's name on the wire."""
    secret: bytes
    """32 bytes: the key of the MAC."""


class Frame(NamedTuple):
    """One message and who sent it."""

    kind: int
    sender: bytes
    incarnation: int
    sequence: int
    payload: bytes
    fields: tuple[Field, ...] = ()
    """Header fields in ascending order of their numbers, those of later versions included."""


def seal(frame: Frame, key: FrameKey) -> bytes:
    """The frame as bytes, with its MAC."""
    head = _PREAMBLE.pack(VERSION, frame.kind, key.cluster, frame.sender, frame.incarnation, frame.sequence)
    authenticated = head + (encode_fields(frame.fields) if frame.fields else NO_FIELDS) + frame.payload
    return authenticated + blake3(authenticated, key=key.secret).digest()


def refusal(data: bytes, clusters: Collection[bytes]) -> str | None:
    """Return why `data` cannot be a frame of these clusters, by its first bytes alone; None when it can.

    "malformed" is what `unseal` calls Malformed, and "unauthentic" what it calls Unauthentic. Costs a quarter of a
    microsecond, while a MAC costs more the longer a frame is.
    """
    if not _SMALLEST <= len(data) <= MAX_FRAME_BYTES or data[0] != VERSION:
        return "malformed"
    return None if data[_CLUSTER] in clusters else "unauthentic"


def unseal(data: bytes, keys: Sequence[FrameKey], understood: Collection[int] = ()) -> Frame:
    """Return the frame in `data`. `understood` are the header fields on which this version acts.

    Raises Malformed for what is no frame, Unauthentic for what no key of ours authenticates, NotUnderstood for a frame
    with a critical header field that is not understood.
    """
    if not _SMALLEST <= len(data) <= MAX_FRAME_BYTES:
        raise Malformed("a frame of an impossible size")
    version, kind, cluster, sender, incarnation, sequence = _PREAMBLE.unpack_from(data)
    if version != VERSION:
        raise Malformed(f"a frame of version {version}")
    authenticated, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
    for key in keys:
        if key.cluster == cluster and hmac.compare_digest(mac, blake3(authenticated, key=key.secret).digest()):
            fields, at = decode_fields(authenticated, _PREAMBLE.size)
            if fields:
                require_understood(fields, understood)
            return Frame(kind, sender, incarnation, sequence, authenticated[at:], fields)
    raise Unauthentic("a frame that no key of this cluster authenticates")

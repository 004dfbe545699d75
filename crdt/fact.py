"""Facts: the immutable flat strings that documents consist of.

    kind                 fields, separated by NUL
    manifest reference   m, digest, media type, size, time, writer
    tag                  t, tag, digest, time, writer
    blob link            b, digest, size, time, writer
    member forgotten     f, instance id, time, writer

Every fact of every kind ends with its time (16 hexadecimal digits, see `clock`) and its writer (hexadecimal). A fact of
a kind this version does not know, or one whose fields it cannot read, is kept, digested and passed on like any other
and never interpreted: a newer version may join first.

Which of several live facts of one tag wins is decided by (time, writer as a number), the highest, everywhere the same.
"""

import re
from typing import NamedTuple

from blake3 import blake3

TAG = "t"
MANIFEST = "m"
BLOB = "b"
FORGOTTEN = "f"
OTHER = "?"

HASH_SIZE = 16
MAX_TEXT_BYTES = 1024
MAX_SIZE = 2**63 - 1
MAX_TIME = 2**63 - 1

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_MEDIA_TYPE = re.compile(r"[\x21-\x7e]{1,255}\Z")
_INSTANCE = re.compile(r"[0-9a-f]{32}\Z")
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")
_TIME = re.compile(r"[0-9a-f]{16}\Z")
_WRITER = re.compile(r"(?:0|[1-9a-f][0-9a-f]{0,13})\Z")


class Fact(NamedTuple):
    """One fact, read. Fields that its kind does not have are empty (or 0)."""

    kind: str
    key: str
    """The tag, the digest of the manifest or blob, the instance; for a fact that is not interpreted, its whole text."""
    digest: str
    """What a tag points at."""
    media_type: str
    size: int
    """Bytes of the manifest or blob."""
    time: int
    writer: int

    def text(self) -> str:
        """The string that documents hold."""
        stamp = f"{self.time:016x}\0{self.writer:x}"
        match self.kind:
            case "t":
                return f"t\0{self.key}\0{self.digest}\0{stamp}"
            case "m":
                return f"m\0{self.key}\0{self.media_type}\0{self.size}\0{stamp}"
            case "b":
                return f"b\0{self.key}\0{self.size}\0{stamp}"
            case "f":
                return f"f\0{self.key}\0{stamp}"
            case _:
                return self.key


def tag_fact(tag: str, digest: str, time: int, writer: int) -> Fact:
    """The tag points at the manifest."""
    return Fact(TAG, tag, digest, "", 0, time, writer)


def manifest_fact(digest: str, media_type: str, size: int, time: int, writer: int) -> Fact:
    """The repository has this manifest, `size` bytes long."""
    return Fact(MANIFEST, digest, "", media_type, size, time, writer)


def blob_fact(digest: str, size: int, time: int, writer: int) -> Fact:
    """The blob, `size` bytes long, can be read in this repository."""
    return Fact(BLOB, digest, "", "", size, time, writer)


def forgotten_fact(instance: str, time: int, writer: int) -> Fact:
    """The instance is gone for good."""
    return Fact(FORGOTTEN, instance, "", "", 0, time, writer)


def writer_of(text: str) -> int | None:
    """The writer a fact names in its last field, or None where it names none."""
    field = text.rpartition("\0")[2]
    return int(field, 16) if _WRITER.match(field) else None


def parse_fact(text: str) -> Fact:
    """Read one fact. Never fails: what cannot be read is a fact of the kind OTHER."""
    fields = text.split("\0")
    if len(fields) >= 4 and _TIME.match(fields[-2]) and _WRITER.match(fields[-1]):
        time, writer = int(fields[-2], 16), int(fields[-1], 16)
        if time <= MAX_TIME:
            match fields[:-2]:
                case ["t", tag, digest] if _TAG.match(tag) and _DIGEST.match(digest):
                    return Fact(TAG, tag, digest, "", 0, time, writer)
                case ["f", instance] if _INSTANCE.match(instance):
                    return Fact(FORGOTTEN, instance, "", "", 0, time, writer)
                case ["b", digest, size] if _DIGEST.match(digest) and _is_size(size):
                    return Fact(BLOB, digest, "", "", int(size), time, writer)
                case ["m", digest, media_type, size] if (
                    _DIGEST.match(digest) and _MEDIA_TYPE.match(media_type) and _is_size(size)
                ):
                    return Fact(MANIFEST, digest, "", media_type, int(size), time, writer)
    return Fact(OTHER, text, "", "", 0, 0, 0)


def fact_hash(text: str) -> bytes:
    """The 16-byte BLAKE3 hash under which the state digest knows a fact."""
    return blake3(text.encode()).digest(HASH_SIZE)


def _is_size(field: str) -> bool:
    return _SIZE.match(field) is not None and int(field) <= MAX_SIZE

"""Facts: the immutable flat strings that documents consist of.

    kind                 fields, separated by NUL
    manifest reference   m, digest, media type, size, time, writer
    tag                  t, tag, digest, time, writer
    blob link            b, digest, size, time, writer
    member removed       f, instance id, time, writer

Every fact of every kind ends with its time (16 hexadecimal digits, see `clock`) and its writer (hexadecimal). A fact of
a kind this version does not know, or one whose fields it cannot read, is kept, digested and passed on like any other
and never interpreted: a newer version may join first.

A kind that begins with `!` is critical: an instance that does not understand such a fact must not act on the rest of
its document as if the fact were not there (as with critical extensions of X.509 certificates, RFC 5280 section 4.2). It
keeps and passes on the fact all the same. The flag is part of the text, and so of every delta, snapshot, diff, bundle,
backup and digest.

Of several live facts about one tag, the one with the highest (time, writer as a number) wins, at every instance.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from blake3 import blake3

TAG = "t"
MANIFEST = "m"
BLOB = "b"
REMOVED = "f"
OTHER = "?"
"""Facts that are not understood, and may be ignored."""
CRITICAL = "!"
"""Facts that are not understood, and must not be ignored; also the mark with which such kinds begin."""

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
    """The digest that a tag points at."""
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


def removed_fact(instance: str, time: int, writer: int) -> Fact:
    """The instance is gone for good."""
    return Fact(REMOVED, instance, "", "", 0, time, writer)


def writer_of(text: str) -> int | None:
    """The writer a fact names in its last field, or None where it names none."""
    field = text.rpartition("\0")[2]
    return int(field, 16) if _WRITER.match(field) else None


FactReader = Callable[[Sequence[str], int, int], Fact | None]
"""Reads the fields between a fact's kind and its time, with its time and writer; None where they cannot be read."""


def _read_tag(fields: Sequence[str], time: int, writer: int) -> Fact | None:
    match fields:
        case [tag, digest] if _TAG.match(tag) and _DIGEST.match(digest):
            return Fact(TAG, tag, digest, "", 0, time, writer)
    return None


def _read_manifest(fields: Sequence[str], time: int, writer: int) -> Fact | None:
    match fields:
        case [digest, media_type, size] if _DIGEST.match(digest) and _MEDIA_TYPE.match(media_type) and _is_size(size):
            return Fact(MANIFEST, digest, "", media_type, int(size), time, writer)
    return None


def _read_blob(fields: Sequence[str], time: int, writer: int) -> Fact | None:
    match fields:
        case [digest, size] if _DIGEST.match(digest) and _is_size(size):
            return Fact(BLOB, digest, "", "", int(size), time, writer)
    return None


def _read_removed(fields: Sequence[str], time: int, writer: int) -> Fact | None:
    match fields:
        case [instance] if _INSTANCE.match(instance):
            return Fact(REMOVED, instance, "", "", 0, time, writer)
    return None


KINDS: Mapping[str, FactReader] = {
    TAG: _read_tag,
    MANIFEST: _read_manifest,
    BLOB: _read_blob,
    REMOVED: _read_removed,
}
"""The kinds of facts that this version understands."""


def parse_fact(text: str, kinds: Mapping[str, FactReader] = KINDS) -> Fact:
    """Read one fact. Never fails: what cannot be read is a fact of the kind CRITICAL or OTHER."""
    kind, *fields = text.split("\0")
    read = kinds.get(kind)
    if read is not None and len(fields) >= 2 and _TIME.match(fields[-2]) and _WRITER.match(fields[-1]):
        time = int(fields[-2], 16)
        fact = read(fields[:-2], time, int(fields[-1], 16)) if time <= MAX_TIME else None
        if fact is not None:
            return fact
    return Fact(CRITICAL if text.startswith(CRITICAL) else OTHER, text, "", "", 0, 0, 0)


def kind_of(text: str) -> str:
    """Return the kind that a fact's text names, understood or not."""
    return text.partition("\0")[0]


def by_writer(fact: Fact, writer: int) -> Fact:
    """Return the same statement, said by another writer."""
    if fact.text() == fact.key:  # not understood, or of a kind that is kept as its text
        key = f"{fact.key.rpartition(chr(0))[0]}\0{writer:x}"
        return fact._replace(key=key, writer=writer if fact.writer else 0)
    return fact._replace(writer=writer)


def fact_hash(text: str) -> bytes:
    """The 16-byte BLAKE3 hash under which the state digest knows a fact."""
    return blake3(text.encode()).digest(HASH_SIZE)


def _is_size(field: str) -> bool:
    return _SIZE.match(field) is not None and int(field) <= MAX_SIZE

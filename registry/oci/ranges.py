"""The Range header (RFC 9110, section 14)."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from registry.errors import RangeInvalid

MAX_RANGES = 1024
"""As many as podman sends in one request. With more ranges, the content is sent whole, which bounds the cost of each
range beside its bytes."""
MAX_UNORDERED = 16
"""Largest number of ranges that may be in another order than that of the content. Many such ranges are a sign of a
broken client or an attack (section 14.2)."""

_RANGE = re.compile(r"(\d{0,19})-(\d{0,19})\Z", re.ASCII)


class ByteRange(NamedTuple):
    """A part of a content: its first byte and its length."""

    first: int
    length: int

    @property
    def end(self) -> int:
        return self.first + self.length


def parse_single_range(header: str | None, size: int) -> ByteRange | None:
    """Return the range of a content of `size` bytes that a request asks for; None where it is answered whole.

    That is so without the header, for units that are not bytes, and for several ranges at once. Raises RangeInvalid for
    a range that is malformed or lies outside.
    """
    listed = _listed(header)
    if header is None or listed is None or "," in listed:
        return None
    found = _parse(listed.strip(), header, size)
    if found is None:
        raise _invalid(header, size)
    return found


def parse_ranges(header: str | None, size: int) -> list[ByteRange] | None:
    """Return the parts of a content of `size` bytes that a request asks for, in its order; None where the content is
    answered whole.

    Ranges that overlap become one, so that no byte is sent twice. Others stay apart, even where one begins at the end
    of another: podman counts the parts. Ranges outside of the content are left out. Raises RangeInvalid where a range
    is malformed, or none is left.
    """
    listed = _listed(header)
    if header is None or listed is None:
        return None
    texts = [text.strip() for text in listed.split(",")]
    if len(texts) > 1:
        texts = [text for text in texts if text]  # a list may have empty elements
    if len(texts) > MAX_RANGES:
        return None
    found = [_parse(text, header, size) for text in texts]
    ranges = _coalesced([one for one in found if one is not None])
    if not ranges:
        raise _invalid(header, size)
    return ranges if len(ranges) <= MAX_UNORDERED or is_ascending(ranges) else None


def is_ascending(ranges: Sequence[ByteRange]) -> bool:
    """Return whether ranges come in the order of the content."""
    return all(before.first < behind.first for before, behind in pairwise(ranges))


def _listed(header: str | None) -> str | None:
    """Return the ranges of a header in bytes; None for another unit."""
    unit, equals, listed = (header or "").partition("=")
    return listed if equals and unit.strip().lower() == "bytes" else None


def _parse(text: str, header: str, size: int) -> ByteRange | None:
    """Return one range; None where it lies outside. Raises RangeInvalid where it is malformed."""
    found = _RANGE.match(text)
    if found is None or found[1] == found[2] == "":
        raise _invalid(header, size)
    if found[1] == "":
        length = min(int(found[2]), size)
        first = size - length
    else:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if found[2] and int(found[2]) < first:
            raise _invalid(header, size)
        length = last - first + 1
    return ByteRange(first, length) if length > 0 and first < size else None


def _coalesced(ranges: list[ByteRange]) -> list[ByteRange]:
    """Return ranges with the same bytes, each byte once; a merged range stands where the first of its parts stood."""
    merged: list[tuple[int, ByteRange]] = []
    for place, one in sorted(enumerate(ranges), key=lambda placed: placed[1]):
        before_place, before = merged[-1] if merged else (0, None)
        if before is not None and one.first < before.end:
            end = max(before.end, one.end)
            merged[-1] = min(place, before_place), ByteRange(before.first, end - before.first)
        else:
            merged.append((place, one))
    return [one for _, one in sorted(merged)]


def _invalid(header: str, size: int) -> RangeInvalid:
    return RangeInvalid("the range lies outside of the content", size, {"range": header[:100]})

"""The Range header (RFC 9110, section 14)."""

import re
from typing import NamedTuple

from registry.errors import RangeInvalid

_RANGE = re.compile(r"(\d{0,19})-(\d{0,19})\Z")


class ByteRange(NamedTuple):
    """A part of a content: its first byte and its length."""

    first: int
    length: int


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The part of a content of `size` bytes that a request asks for; None where it is answered whole.

    That is so without the header, for units that are not bytes, and for several ranges at once, which need not be
    honoured. Raises RangeInvalid for a range that is malformed or lies outside.
    """
    if header is None:
        return None
    unit, equals, ranges = header.partition("=")
    if not equals or unit.strip().lower() != "bytes" or "," in ranges:
        return None
    found = _RANGE.match(ranges.strip())
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
    if length <= 0 or first >= size:
        raise _invalid(header, size)
    return ByteRange(first, length)


def _invalid(header: str, size: int) -> RangeInvalid:
    return RangeInvalid(
        "the range lies outside of the content", {"range": header[:100]}, {"Content-Range": f"bytes */{size}"}
    )

"""The variable-length unsigned integers of the Yjs update format (lib0 encoding): 7 bits a byte, lowest first."""

from crdt.errors import Malformed

MAX_SHIFT = 56


def write_varint(out: bytearray, value: int) -> None:
    """Append `value` (0 or more) to `out`."""
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer that starts at offset `at`, and the offset behind it.

    Raises Malformed where the bytes end inside it, or it is longer than 63 bits.
    """
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
            if shift > MAX_SHIFT:
                raise Malformed("an integer is too long")
    except IndexError:
        raise Malformed("the bytes end inside an integer") from None


def read_byte(data: bytes, at: int) -> tuple[int, int]:
    """The byte at offset `at`, and the offset behind it. Raises Malformed at the end of the bytes."""
    if at >= len(data):
        raise Malformed("the bytes end early")
    return data[at], at + 1


def write_bytes(out: bytearray, value: bytes) -> None:
    """Append a length and the bytes themselves."""
    write_varint(out, len(value))
    out += value


def read_bytes(data: bytes, at: int, limit: int) -> tuple[bytes, int]:
    """The length-prefixed bytes at offset `at`, at most `limit` of them, and the offset behind them.

    Raises Malformed where they are longer than the limit or the data.
    """
    size, at = read_varint(data, at)
    end = at + size
    if size > limit or end > len(data):
        raise Malformed("a string is longer than it may be")
    return data[at:end], end

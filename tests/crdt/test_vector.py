import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import Malformed
from crdt.varint import read_varint, write_varint
from crdt.vector import MAX_CLOCK, MAX_WRITER, covers, decode_vector, encode_vector

VECTORS = st.dictionaries(st.integers(0, MAX_WRITER), st.integers(0, MAX_CLOCK), max_size=20)


@given(VECTORS)
def test_decode_vector_reads_what_encode_writes(vector):
    assert decode_vector(encode_vector(vector)) == vector


@given(st.binary(max_size=40))
def test_decode_vector_of_any_bytes_is_a_vector_or_malformed(data):
    try:
        vector = decode_vector(data)
    except Malformed:
        return
    assert all(0 <= writer <= MAX_WRITER and 0 <= clock <= MAX_CLOCK for writer, clock in vector.items())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\xff\xff\xff\xff\x0f",
        b"\x00\x00",
        b"\x02\x01\x01\x01\x01",
        bytes([1]) + b"\xff" * 8 + b"\x01\x01",
    ],
)
def test_decode_vector_refuses_length_bombs_repeats_and_trailing_bytes(data):
    with pytest.raises(Malformed):
        decode_vector(data)


@given(VECTORS, VECTORS)
def test_covers_is_every_clock_reached(have, need):
    assert covers(have, need) == all(have.get(writer, 0) >= clock for writer, clock in need.items())


@given(st.integers(0, 2**63 - 1))
def test_read_varint_reads_what_write_varint_writes(value):
    out = bytearray()
    write_varint(out, value)
    assert read_varint(bytes(out), 0) == (value, len(out))

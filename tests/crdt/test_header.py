"""The header of frames and its fields, those of later versions among them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import CrdtError, Malformed, NotUnderstood
from crdt.header import (
    MAX_BIT,
    MAX_HEADER_BYTES,
    MAX_NUMBER,
    NO_FIELDS,
    REVISIONS,
    Field,
    decode_bits,
    decode_fields,
    encode_bits,
    encode_fields,
    find_field,
    require_understood,
)
from crdt.revisions import MAX_REVISIONS, Revision, decode_revisions, encode_revisions
from crdt.vector import MAX_CLOCK, MAX_WRITER

FIELDS = st.lists(
    st.builds(Field, st.integers(1, MAX_NUMBER), st.binary(max_size=40), st.booleans()),
    unique_by=lambda field: field.number,
    max_size=20,
).map(tuple)
REVISIONS_OF = st.lists(
    st.builds(
        Revision,
        st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40),
        st.dictionaries(st.integers(0, MAX_WRITER), st.integers(0, MAX_CLOCK), max_size=8),
        st.sampled_from((b"", bytes(range(16)))),
    ),
    unique_by=lambda revision: revision.document,
    max_size=MAX_REVISIONS,
)


@given(FIELDS, st.binary(max_size=20), st.binary(max_size=20))
def test_what_was_encoded_is_decoded_and_nothing_else_is_read(fields, before, after):
    data = before + encode_fields(fields) + after
    decoded, at = decode_fields(data, len(before))
    assert list(decoded) == sorted(fields)
    assert data[at:] == after


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_in_their_one_spelling_or_malformed(data):
    """There is one spelling for each list of fields but for the lengths, so that nothing can be hidden between them."""
    try:
        fields, at = decode_fields(data, 0)
    except Malformed:
        return
    assert at <= len(data)
    assert decode_fields(encode_fields(fields), 0)[0] == fields


@given(FIELDS, st.data())
def test_a_changed_header_is_read_as_fields_or_refused_as_malformed(fields, data):
    raw = bytearray(encode_fields(fields) + bytes(8))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded, at = decode_fields(bytes(raw), 0)
    except CrdtError as error:
        assert isinstance(error, Malformed)
    else:
        assert at <= len(raw)
        assert [field.number for field in decoded] == sorted({field.number for field in decoded})


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("a size beyond the bytes", b"\x05\x01\x00"),
        ("a size that is cut off", b"\x80"),
        ("number 0", b"\x02\x00\x00"),
        ("number 0, critical", b"\x02\x80\x00"),
        ("the same number twice", b"\x04\x01\x00\x01\x00"),
        ("the same number twice, once critical", b"\x04\x01\x00\x81\x00"),
        ("descending numbers", b"\x04\x02\x00\x01\x00"),
        ("a value beyond the header", b"\x02\x01\x03abc"),
        ("a length beyond the header", b"\x01\x01\x00"),
        ("too many bytes", b"\x81\x20" + b"\x01\xfe\x1f" + bytes(MAX_HEADER_BYTES)),
    ],
)
def test_malformed_headers_are_refused(why, data):
    with pytest.raises(Malformed):
        decode_fields(data, 0)


def test_a_frame_without_fields_has_a_header_of_one_byte():
    assert encode_fields(()) == NO_FIELDS
    assert decode_fields(NO_FIELDS + b"\x01\x00", 0) == ((), 1)


@pytest.mark.parametrize(
    "fields",
    [
        (Field(0, b""),),
        (Field(MAX_NUMBER + 1, b""),),
        (Field(3, b"a"), Field(3, b"b")),
        (Field(3, bytes(MAX_HEADER_BYTES)),),
    ],
)
def test_fields_that_no_header_can_have_are_not_encoded(fields):
    with pytest.raises(ValueError, match="header"):
        encode_fields(fields)


def test_only_critical_fields_have_to_be_understood():
    require_understood((Field(9, b""), Field(10, b"", critical=True)), {10})
    with pytest.raises(NotUnderstood, match="field 10 "):
        require_understood((Field(9, b""), Field(10, b"", critical=True)), {9})


@given(st.sets(st.integers(0, MAX_BIT)))
def test_bits_are_read_as_they_were_written(numbers):
    assert decode_bits(encode_bits(numbers)) == numbers


def test_bits_have_no_trailing_bytes_and_those_beyond_the_bound_are_ignored():
    assert (encode_bits(()), encode_bits((0, 1)), encode_bits((8,))) == (b"", b"\x03", b"\x00\x01")
    assert decode_bits(b"\x01" + bytes(40) + b"\xff" * 1000) == {0}
    with pytest.raises(ValueError, match="256"):
        encode_bits((MAX_BIT + 1,))


@given(REVISIONS_OF)
def test_revisions_of_other_documents_travel_in_a_header(revisions):
    value = encode_revisions(revisions)
    if len(value) < MAX_HEADER_BYTES - 8:
        fields, _ = decode_fields(encode_fields((Field(REVISIONS, value, critical=True),)), 0)
        value = find_field(fields, REVISIONS)
    assert sorted(decode_revisions(value)) == sorted(revisions)


@given(st.binary(max_size=200))
def test_any_bytes_are_revisions_or_malformed(data):
    try:
        revisions = decode_revisions(data)
    except Malformed:
        return
    assert len(revisions) <= MAX_REVISIONS
    assert decode_revisions(encode_revisions(revisions)) == revisions


@pytest.mark.parametrize(
    ("why", "value"),
    [
        ("no name", encode_revisions([Revision("", {1: 1})])),
        ("names out of order", encode_revisions([Revision("b", {})]) + encode_revisions([Revision("a", {})])),
        ("a name twice", 2 * encode_revisions([Revision("a", {})])),
        ("a digest of another size", encode_revisions([Revision("a", {}, b"short")])),
        ("too many", encode_revisions([Revision(f"{n:03}", {}) for n in range(MAX_REVISIONS + 1)])),
        ("a name that is no UTF-8", b"\x01\xff\x01\x00\x00"),
        ("an impossible writer", b"\x01a\x0b\x01" + b"\xff" * 8 + b"\x7f\x01\x00"),
        ("an end in the middle", encode_revisions([Revision("a", {1: 1})])[:-1]),
    ],
)
def test_malformed_revisions_are_refused(why, value):
    with pytest.raises(Malformed):
        decode_revisions(value)

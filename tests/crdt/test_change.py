import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.change import MAX_BODIES, Change, decode_change, encode_change
from crdt.errors import Malformed

CHANGES = st.builds(
    Change,
    document=st.text(max_size=50),
    writer=st.integers(0, 2**53 - 1),
    clock=st.integers(0, 2**31 - 1),
    needs=st.dictionaries(st.integers(0, 2**53 - 1), st.integers(0, 2**31 - 1), max_size=5),
    delta=st.binary(max_size=100),
    state_digest=st.binary(min_size=16, max_size=16),
    commit=st.integers(0, 2**62),
    bodies=st.lists(st.binary(max_size=30), max_size=3).map(tuple),
)


@given(CHANGES)
def test_decode_change_reads_what_encode_wrote(change):
    assert decode_change(encode_change(change)) == change


@given(st.binary(max_size=200))
def test_decode_change_of_any_bytes_is_a_change_or_malformed(data):
    try:
        decode_change(data)
    except Malformed:
        pass


def test_decode_change_refuses_too_many_bodies():
    change = Change("d", 1, 0, {}, b"", bytes(16), 1, (b"",) * (MAX_BODIES + 1))
    with pytest.raises(Malformed):
        decode_change(encode_change(change))

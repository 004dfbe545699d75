import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.errors import CrdtError, Malformed, Unauthentic
from crdt.frame import (
    CHANGE,
    MAX_BODIES,
    MAX_FRAME_BYTES,
    Change,
    ClusterKey,
    Frame,
    decode_change,
    encode_change,
    seal,
    unseal,
)

KEY, OLD, FOREIGN = ClusterKey("our secret"), ClusterKey("our old secret"), ClusterKey("their secret")
FRAME = Frame(CHANGE, bytes(range(16)), 7, 9, b"payload")
CHANGES = st.builds(
    Change,
    document=st.text(max_size=50),
    writer=st.integers(0, 2**53 - 1),
    clock=st.integers(0, 2**31 - 1),
    needs=st.dictionaries(st.integers(0, 2**53 - 1), st.integers(0, 2**31 - 1), max_size=5),
    delta=st.binary(max_size=100),
    digest=st.binary(min_size=16, max_size=16),
    commit=st.integers(0, 2**62),
    bodies=st.lists(st.binary(max_size=30), max_size=3).map(tuple),
)


def test_unseal_reads_what_seal_wrote():
    assert unseal(seal(FRAME, KEY), [KEY]) == FRAME


def test_unseal_takes_every_key_of_the_list_so_that_keys_can_be_exchanged():
    assert unseal(seal(FRAME, OLD), [KEY, OLD]) == FRAME


def test_unseal_refuses_another_clusters_frame():
    with pytest.raises(Unauthentic):
        unseal(seal(FRAME, FOREIGN), [KEY, OLD])


def test_unseal_refuses_a_frame_that_claims_our_cluster_under_another_key():
    forged = bytearray(seal(FRAME, FOREIGN))
    forged[2:10] = KEY.cluster
    with pytest.raises(Unauthentic):
        unseal(bytes(forged), [KEY])


def test_unseal_refuses_every_changed_bit():
    sealed = seal(FRAME, KEY)
    for at in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(CrdtError):
            unseal(bytes(changed), [KEY])


def test_unseal_refuses_forged_and_random_frames():
    drawn = random.Random(1)
    for _ in range(20_000):
        data = drawn.randbytes(drawn.randrange(200))
        with pytest.raises(CrdtError):
            unseal(data, [KEY])


@pytest.mark.parametrize("data", [b"", bytes(50), bytes(MAX_FRAME_BYTES + 1)])
def test_unseal_refuses_impossible_sizes(data):
    with pytest.raises(Malformed):
        unseal(data, [KEY])


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

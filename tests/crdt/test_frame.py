import random

import pytest

from crdt.errors import CrdtError, Malformed, Unauthentic
from crdt.frame import CHANGE, MAX_FRAME_BYTES, Frame, FrameKey, seal, unseal

KEY, OLD, FOREIGN = (FrameKey(bytes([n] * 8), bytes([n] * 32)) for n in (1, 2, 3))
FRAME = Frame(CHANGE, bytes(range(16)), 7, 9, b"payload")


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

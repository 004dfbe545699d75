import random

import pytest

from crdt.errors import CrdtError, Malformed, NotUnderstood, Unauthentic
from crdt.frame import CHANGE, MAX_FRAME_BYTES, VERSION, Frame, FrameKey, refusal, seal, unseal
from crdt.header import Field

KEY, OLD, FOREIGN = (FrameKey(bytes([n] * 8), bytes([n] * 32)) for n in (1, 2, 3))
FRAME = Frame(CHANGE, bytes(range(16)), 7, 9, b"payload")
LATER = FRAME._replace(fields=(Field(1, b"\x03"), Field(99, b"of a later version")))
CRITICAL = FRAME._replace(fields=(Field(1, b"\x03"), Field(99, b"of a later version", critical=True)))


def test_unseal_reads_what_seal_wrote():
    assert unseal(seal(FRAME, KEY), [KEY]) == FRAME


def test_unseal_keeps_header_fields_that_are_unknown_apart_from_the_payload():
    assert unseal(seal(LATER, KEY), [KEY]) == LATER


def test_unseal_refuses_a_critical_field_unless_it_is_understood():
    with pytest.raises(NotUnderstood, match="99"):
        unseal(seal(CRITICAL, KEY), [KEY], {1, 2})
    assert unseal(seal(CRITICAL, KEY), [KEY], {99}) == CRITICAL


def test_unseal_refuses_a_critical_field_only_of_a_member():
    with pytest.raises(Unauthentic):
        unseal(seal(CRITICAL, FOREIGN), [KEY])


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


@pytest.mark.parametrize("frame", [FRAME, LATER, CRITICAL])
def test_unseal_refuses_every_changed_bit_of_frame_and_header(frame):
    sealed = seal(frame, KEY)
    for at in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises((Malformed, Unauthentic)):
            unseal(bytes(changed), [KEY])


def test_unseal_refuses_forged_and_random_frames():
    drawn = random.Random(1)
    for _ in range(20_000):
        data = drawn.randbytes(drawn.randrange(200))
        with pytest.raises(CrdtError):
            unseal(data, [KEY])


def test_refusal_by_the_first_bytes_is_what_unseal_would_say():
    drawn, keys = random.Random(3), [KEY, OLD]
    clusters, seen = {key.cluster for key in keys}, set()
    genuine = [seal(FRAME, key) for key in (KEY, OLD, FOREIGN)]
    for _ in range(20_000):
        data = bytearray(drawn.choice([*genuine, drawn.randbytes(drawn.randrange(200))]))
        for _ in range(drawn.randrange(3)):
            if data:
                data[drawn.randrange(len(data))] = drawn.randrange(256)
        why = refusal(bytes(data), clusters)
        try:
            unseal(bytes(data), keys)
            said = None
        except Malformed:
            said = "malformed"
        except Unauthentic:
            said = "unauthentic"
        assert why == said or (why is None and said == "unauthentic"), "only the MAC is left to unseal"
        seen.add((why, said))
    assert len(seen) == 4
    assert refusal(bytes([VERSION]) + bytes(MAX_FRAME_BYTES), clusters) == "malformed"


@pytest.mark.parametrize("data", [b"", bytes(50), bytes(MAX_FRAME_BYTES + 1)])
def test_unseal_refuses_impossible_sizes(data):
    with pytest.raises(Malformed):
        unseal(data, [KEY])

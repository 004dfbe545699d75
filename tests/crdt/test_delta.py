import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt.delta import decode_delta, encode_delta, own_delta, own_span
from crdt.document import Document
from crdt.errors import DocumentBroken, Malformed
from crdt.fact import tag_fact
from crdt.vector import MAX_WRITER
from tests.support.writing import WritingDocument

W, V = 0x1234567, 0x1FFFFFFFFFFFFF


def text(tag: str, writer: int = W, time: int = 1) -> str:
    return tag_fact(tag, "sha256:" + "a" * 64, time, writer).text()


OPERATIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.lists(st.integers(0, 30), max_size=4)), min_size=1, max_size=25
)


@settings(max_examples=3 * settings.default.max_examples)
@given(OPERATIONS, st.lists(st.integers(0, MAX_WRITER), min_size=3, max_size=3, unique=True))
def test_encode_delta_is_byte_for_byte_what_pycrdt_makes(operations, writers):
    documents = [WritingDocument(writer) for writer in writers]
    clocks = dict.fromkeys(writers, 0)
    live: dict[str, tuple[int, int]] = {}
    for number, (who, appended, doomed) in enumerate(operations):
        writer = writers[who]
        texts = [text(f"t{number}.{i}", writer, number) for i in range(appended)]
        names = sorted(live)
        deleted = sorted({names[i % len(names)] for i in doomed}) if names else []
        ours = encode_delta(writer, clocks[writer], texts, [live[name] for name in deleted])
        assert decode_delta(ours) == own_delta(writer, clocks[writer], texts, [live[name] for name in deleted])
        assert ours == documents[who].write(texts, deleted)
        for name in deleted:
            del live[name]
        live |= {entry.text: (entry.writer, entry.clock) for entry in decode_delta(ours).added}
        clocks[writer] += appended or 1
        for other in documents:
            other.apply(ours)
    for document in documents:
        assert document.texts() == sorted(live)
        assert document.vector() == {writer: clock for writer, clock in clocks.items() if clock}


@given(OPERATIONS, st.integers(0, 25))
def test_decode_delta_accepts_every_genuine_diff_and_reads_its_facts(operations, seen_operations):
    writers = [3, 2**40, MAX_WRITER]
    whole, part = Document(), Document()
    clocks = dict.fromkeys(writers, 0)
    live: dict[tuple[int, int], str] = {}
    for number, (who, appended, doomed) in enumerate(operations):
        writer = writers[who]
        texts = [text(f"t{number}.{i}", writer, number) for i in range(appended)]
        identities = sorted(live)
        deleted = sorted({identities[i % len(identities)] for i in doomed}) if identities else []
        delta = encode_delta(writer, clocks[writer], texts, deleted)
        for identity in deleted:
            del live[identity]
        live |= {(writer, clocks[writer] + i): one for i, one in enumerate(texts)}
        clocks[writer] += appended or 1
        whole.apply(delta)
        if number < seen_operations:
            part.apply(delta)
    snapshot = decode_delta(whole.snapshot())
    assert {(entry.writer, entry.clock): entry.text for entry in snapshot.added} == live
    diff = whole.diff(part.vector())
    decode_delta(diff)
    part.apply(diff)
    assert part.texts() == whole.texts()
    assert part.snapshot() == whole.snapshot()


def test_a_pure_delete_moves_the_state_vector():
    document = Document()
    document.apply(encode_delta(W, 0, [text("v1")], []))
    document.apply(encode_delta(V, 0, [], [(W, 0)]))
    assert document.vector() == {W: 1, V: 1}
    assert document.texts() == []


GOOD = encode_delta(W, 0, [text("v1")], [])
ITEM = bytes([1, 1]) + b"\xe7\x8a\x8d\x09"  # one client, one struct, the writer W


def refused(*parts: bytes) -> bytes:
    return b"".join(parts)


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("empty", b""),
        ("cut off", GOOD[:-1]),
        ("followed by more", GOOD + b"\0"),
        ("a length bomb", bytes([1]) + b"\xff\xff\xff\xff\x07"),
        ("GC", refused(ITEM, bytes([0, 0, 5]), b"\0")),
        ("Skip", refused(ITEM, bytes([0, 10, 5]), b"\0")),
        ("a nested type", refused(ITEM, bytes([0, 7, 1, 8]), b"w1234567", bytes([0]), b"\0")),
        ("JSON content", refused(ITEM, bytes([0, 2, 1, 8]), b"w1234567", bytes([1, 1, 0x31]), b"\0")),
        ("another root", refused(ITEM, bytes([0, 8, 1, 3]), b"map", bytes([1, 119, 0]), b"\0")),
        ("a parent that is an item", refused(ITEM, bytes([0, 8, 0, 1, 0, 1, 119, 0]), b"\0")),
        ("a map key", refused(ITEM, bytes([0, 0x28, 1, 8]), b"w1234567", bytes([1, 0x6B, 1, 119, 0]), b"\0")),
        (
            "a right origin",
            refused(ITEM, bytes([1, 0xC8]), b"\xe7\x8a\x8d\x09\0\xe7\x8a\x8d\x09\0", bytes([1, 119, 0]), b"\0"),
        ),
        ("no origin", refused(ITEM, bytes([1, 8, 1, 8]), b"w1234567", bytes([1, 119, 0]), b"\0")),
        ("a far origin", refused(ITEM, bytes([2, 0x88]), b"\xe7\x8a\x8d\x09\0", bytes([1, 119, 0]), b"\0")),
        ("a foreign origin", refused(ITEM, bytes([1, 0x88]), b"\x05\0", bytes([1, 119, 0]), b"\0")),
        ("an array value", refused(ITEM, bytes([0, 8, 1, 8]), b"w1234567", bytes([1, 117, 1, 119, 0]), b"\0")),
        ("a number", refused(ITEM, bytes([0, 8, 1, 8]), b"w1234567", bytes([1, 125, 5]), b"\0")),
        ("no entries", refused(ITEM, bytes([0, 8, 1, 8]), b"w1234567", bytes([0]), b"\0")),
        ("too many entries", refused(ITEM, bytes([0, 1, 1, 8]), b"w1234567", b"\xff\xff\xff\xff\x0f", b"\0")),
        ("no UTF-8", refused(ITEM, bytes([0, 8, 1, 8]), b"w1234567", bytes([1, 119, 1, 0xFF]), b"\0")),
        ("an empty fact that lives", refused(ITEM, bytes([0, 8, 1, 8]), b"w1234567", bytes([1, 119, 0]), b"\0")),
        ("a clock of 2^31", refused(ITEM, b"\x80\x80\x80\x80\x08", bytes([0x81]), b"\xe7\x8a\x8d\x09\0\x01", b"\0")),
        ("a writer twice", refused(bytes([2, 1]), GOOD[2:-1], bytes([1]), GOOD[2:])),
        ("no structs", refused(bytes([1, 0]), b"\xe7\x8a\x8d\x09", b"\0\0")),
        ("an empty range", GOOD[:-1] + bytes([1]) + b"\xe7\x8a\x8d\x09" + bytes([1, 0, 0])),
        ("overlapping ranges", GOOD[:-1] + bytes([1]) + b"\xe7\x8a\x8d\x09" + bytes([2, 0, 2, 1, 1])),
        ("a writer twice in the delete set", GOOD[:-1] + bytes([2]) + b"\x05\x01\0\x01" * 2),
        ("a writer without ranges", GOOD[:-1] + bytes([1]) + b"\x05\0"),
        ("a deleted range beyond 2^31", GOOD[:-1] + bytes([1]) + b"\x05\x01\x01\xff\xff\xff\xff\x0f"),
    ],
)
def test_decode_delta_refuses(why, data):
    with pytest.raises(Malformed):
        decode_delta(data)


def test_decode_delta_refuses_a_fact_in_another_writers_name():
    with pytest.raises(Malformed):
        decode_delta(encode_delta(W, 0, [text("v1", writer=V)], []))


def test_decode_delta_refuses_a_text_beyond_the_bound():
    with pytest.raises(Malformed):
        decode_delta(encode_delta(W, 0, ["z\0" + "x" * 2000 + f"\0{1:016x}\0{W:x}"], []))


def test_mutated_updates_are_refused_or_harmless():
    """Nothing that passes the check makes pycrdt fail, whatever it is applied to."""
    drawn = random.Random(7)
    base = Document()
    deltas, clocks = [], {W: 0, V: 0}
    for number in range(12):
        writer = drawn.choice([W, V])
        texts = [text(f"t{number}.{i}", writer, number) for i in range(drawn.randrange(3))]
        deltas.append(encode_delta(writer, clocks[writer], texts, [(W, 0)] if number > 3 and clocks[W] else []))
        clocks[writer] += len(texts) or 1
        base.apply(deltas[-1])
    snapshot = base.snapshot()
    accepted = 0
    for _ in range(20_000):
        mutant = bytearray(drawn.choice([*deltas, snapshot]))
        for _ in range(drawn.choice([1, 1, 1, 2, 4])):
            kind, at = drawn.randrange(4), drawn.randrange(len(mutant))
            if kind == 0:
                mutant[at] ^= 1 << drawn.randrange(8)
            elif kind == 1:
                mutant[at] = drawn.choice([0, 1, 0x7F, 0x80, 0xFF])
            elif kind == 2:
                del mutant[at : at + drawn.randrange(1, 4)]
            else:
                mutant[at:at] = drawn.randbytes(drawn.randrange(1, 4))
        try:
            decode_delta(bytes(mutant))
        except Malformed:
            continue
        accepted += 1
        victim = Document([snapshot])
        try:
            victim.apply(bytes(mutant))
            victim.texts()
        except DocumentBroken as error:
            raise AssertionError(f"passed the check and broke a document: {bytes(mutant).hex()}") from error
    assert accepted > 100


@pytest.mark.parametrize("clock", [0, 1, 127, 128, 2**30])
@pytest.mark.parametrize("count", [0, 1, 200])
def test_own_span_is_what_the_whole_update_covers(clock, count):
    writer = MAX_WRITER - 1
    texts = [tag_fact(f"t{number}", "sha256:" + "0" * 64, 1, writer).text() for number in range(count)]
    raw = encode_delta(writer, clock, texts, [(5, 3)])
    assert own_span(raw) == decode_delta(raw).spans[writer]

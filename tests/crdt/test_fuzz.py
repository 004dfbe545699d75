"""A million frames that were never sent: nothing escapes, nothing that is not authentic changes anything.

Mutations begin from genuine frames, and from those of their own that got further than others did: the depth at which
one is refused guides the search, as coverage would.
"""

import os
import random
import resource

import pytest

from crdt.change import Change, decode_change, encode_change
from crdt.delta import decode_delta
from crdt.document import Document
from crdt.errors import CrdtError, Malformed, Unauthentic
from crdt.frame import CHANGE, Frame, FrameKey, seal, unseal
from crdt.gate import admit
from crdt.header import Field
from tests.support.histories import NAME, history

pytestmark = pytest.mark.slow

KEY = FrameKey(b"cluster!", bytes(range(32)))
CHUNKS = 4
FORGED = int(os.environ.get("FUZZ_FORGED", 600_000)) // CHUNKS
AUTHENTIC = int(os.environ.get("FUZZ_AUTHENTIC", 400_000)) // CHUNKS


def genuine(seed):
    deltas, _ = history(seed, operations=20)
    for number, raw in enumerate(deltas):
        ((writer, (first, _)),) = decode_delta(raw).spans.items()
        yield Change(NAME, writer, first, {}, raw, bytes(16), number + 1, (b"{}",) * (number % 3))


def mutated(data, drawn):
    """One to four random changes: bits, bytes, pieces dropped, doubled, moved, or made extreme."""
    out = bytearray(data)
    for _ in range(drawn.randint(1, 4)):
        at = drawn.randrange(len(out) + 1)
        match drawn.randrange(6):
            case 0 if out:
                out[at % len(out)] ^= 1 << drawn.randrange(8)
            case 1:
                out[at:at] = drawn.randbytes(drawn.randint(1, 4))
            case 2:
                del out[at : at + drawn.randint(1, 8)]
            case 3 if out:
                out[at % len(out)] = drawn.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 4:
                out[at:at] = out[at : at + drawn.randint(1, 16)]
            case 5:
                out[at:at] = b"\xff" * drawn.randint(1, 9) + b"\x7f"
    return bytes(out)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_forged_frames_are_refused_whatever_they_hold(chunk):
    drawn = random.Random(f"forged {chunk}")
    fields = ((), (Field(1, b"\x03"),), (Field(1, b"\x03"), Field(99, bytes(30), critical=True)))
    frames = [
        seal(Frame(CHANGE, bytes(16), 1, n, encode_change(c), fields[n % 3]), KEY) for n, c in enumerate(genuine(chunk))
    ]
    known = set(frames)
    for _ in range(FORGED):
        frame = mutated(drawn.choice(frames), drawn)
        if frame in known:
            continue
        with pytest.raises((Unauthentic, Malformed)):
            unseal(frame, [KEY])


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_authentic_nonsense_is_applied_only_where_it_is_well_formed(chunk):
    drawn = random.Random(f"authentic {chunk}")
    changes = [encode_change(change) for change in genuine(chunk)]
    corpus = list(changes)
    document = Document([change.delta for change in genuine(chunk)])
    vector, texts = document.vector(), sorted(document.texts())
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    depths = [0, 0, 0, 0]
    for turn in range(AUTHENTIC):
        payload = mutated(drawn.choice(corpus), drawn)
        depth = _depth(payload, vector)
        depths[depth] += 1
        if depth >= 2 and len(corpus) < 4000:
            corpus.append(payload)  # it got past the first look
        if depth == 3 and turn % 50 == 0:
            victim = Document([document.snapshot()])
            victim.apply(decode_change(payload).delta)
            victim.texts()
    assert depths[3] > AUTHENTIC // 1000, "some get to the very end, else this looks at nothing"
    assert sorted(document.texts()) == texts
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


def _depth(payload, vector):
    """How far a payload gets: 0 no change, 1 no delta, 2 early, 3 to be applied."""
    try:
        change = decode_change(payload)
    except CrdtError:
        return 0
    try:
        delta = decode_delta(change.delta)
    except CrdtError:
        return 1
    return 2 if admit(vector, delta, change.needs) is None else 3

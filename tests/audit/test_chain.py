"""The chain of an audit log: what is altered, removed or inserted breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.audit.chain import EMPTY, BrokenChain, Head, heads, next_line

FIELDS = st.dictionaries(st.sampled_from(["event", "path", "status"]), st.text() | st.integers(0, 1000))


def chain(events, head=EMPTY):
    lines = []
    for fields in events:
        line, head = next_line(head, fields)
        lines.append(line)
    return lines, head


@given(st.lists(FIELDS, min_size=1))
def test_a_chain_holds_from_its_beginning_and_from_any_line(events):
    lines, head = chain(events)
    assert list(heads(lines, EMPTY))[-1] == head == Head(len(events), head.hash)
    assert list(heads(lines[len(lines) // 2 :]))[-1] == head
    more, end = chain([{"event": "more"}], head)
    assert list(heads(more, head)) == [end]


@pytest.mark.parametrize("change", ["altered", "removed", "inserted", "swapped", "no line", "other beginning"])
def test_a_change_breaks_it(change):
    lines, _ = chain([{"event": str(number)} for number in range(5)])
    forged, _ = chain([{"event": "forged"}], list(heads(lines[:2], EMPTY))[-1])
    changed = {
        "altered": [*lines[:2], lines[2].replace(b'"2"', b'"x"'), *lines[3:]],
        "removed": [*lines[:2], *lines[3:]],
        "inserted": [*lines[:2], *forged, *lines[2:]],
        "swapped": [*lines[:2], lines[3], lines[2], lines[4]],
        "no line": [*lines[:2], b"text", *lines[2:]],
        "other beginning": lines[1:],
    }[change]
    assert len(list(heads(lines, EMPTY))) == 5
    with pytest.raises(BrokenChain):
        list(heads(changed, EMPTY))

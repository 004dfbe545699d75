import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.fact import (
    MAX_SIZE,
    MAX_TIME,
    OTHER,
    Fact,
    blob_fact,
    fact_hash,
    manifest_fact,
    parse_fact,
    tag_fact,
    writer_of,
)
from crdt.vector import MAX_WRITER

DIGESTS = st.integers(0, 2**256 - 1).map("sha256:{:064x}".format)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True).filter(str.isascii)
TIMES = st.integers(0, MAX_TIME)
WRITERS = st.integers(0, MAX_WRITER)
SIZES = st.integers(0, MAX_SIZE)
FACTS = st.one_of(
    st.builds(tag_fact, TAGS, DIGESTS, TIMES, WRITERS),
    st.builds(manifest_fact, DIGESTS, st.sampled_from(["a/b", "application/vnd.x+json"]), SIZES, TIMES, WRITERS),
    st.builds(blob_fact, DIGESTS, SIZES, TIMES, WRITERS),
)


@given(FACTS)
def test_parse_fact_reads_what_text_writes(fact):
    assert parse_fact(fact.text()) == fact
    assert writer_of(fact.text()) == fact.writer


@given(st.text())
def test_parse_fact_keeps_any_text(text):
    fact = parse_fact(text)
    assert fact.text() == text


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    "text",
    [
        f"t\0-bad\0{DIGEST}\0{1:016x}\0{1:x}",
        f"t\0v1\n\0{DIGEST}\0{1:016x}\0{1:x}",
        f"t\0v1\0sha256:{'A' * 64}\0{1:016x}\0{1:x}",
        f"t\0v1\0sha512:{'a' * 64}\0{1:016x}\0{1:x}",
        f"t\0v1\0{DIGEST}\0{2**63:016x}\0{1:x}",
        f"t\0v1\0{DIGEST}\0{1:x}\0{1:x}",
        f"b\0{DIGEST}\0-1\0{1:016x}\0{1:x}",
        f"b\0{DIGEST}\0{2**63}\0{1:016x}\0{1:x}",
        f"b\0{DIGEST}\0 1\0{1:016x}\0{1:x}",
        f"m\0{DIGEST}\0a/b\r\nX: y\0{1}\0{1:016x}\0{1:x}",
        f"m\0{DIGEST}\0\0{1}\0{1:016x}\0{1:x}",
        f"z\0something newer\0{1:016x}\0{1:x}",
        "",
    ],
)
def test_parse_fact_of_unknown_or_impossible_fields_is_not_interpreted(text):
    assert parse_fact(text) == Fact(OTHER, text, "", "", 0, 0, 0)


def test_fact_hash_differs_for_different_facts():
    assert len(fact_hash("a")) == 16
    assert fact_hash("a") != fact_hash("b")

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.adapters.resp import MAX_HEAD_BYTES, MessageParser, NoSubscription

BOUND = 1000


def message(channel: bytes, payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(channel), channel, len(payload), payload)


def subscribed(channel: bytes) -> bytes:
    return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%s\r\n:1\r\n" % (len(channel), channel)


@given(
    st.lists(st.binary(max_size=BOUND + 200) | st.just(b"\r\n*3\r\n$7\r\nmessage\r\n"), max_size=8),
    st.lists(st.integers(1, 300), max_size=40),
)
def test_messages_are_the_same_however_they_are_cut(payloads, cuts):
    stream = subscribed(b"c") + b"".join(message(b"c", payload) for payload in payloads)
    parser, messages, at = MessageParser(BOUND), [], 0
    for size in [*cuts, len(stream)]:
        messages += parser.feed(stream[at : at + size])
        at += size
    assert messages == [(b"c", payload) for payload in payloads if len(payload) <= BOUND]
    assert parser.too_large == sum(len(payload) > BOUND for payload in payloads)


def test_a_payload_beyond_the_bound_is_never_in_memory():
    parser = MessageParser(BOUND)
    assert parser.feed(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$536870912\r\n") == []
    for _ in range(100):
        assert parser.feed(bytes(65536)) == []
        assert len(parser._unparsed) == 0
    rest = 536870912 - 100 * 65536
    while rest:
        size = min(rest, 1 << 24)
        parser.feed(bytes(size))
        rest -= size
    assert parser.feed(b"\r\n" + message(b"c", b"next")) == [(b"c", b"next")]
    assert parser.too_large == 1


def test_an_error_ends_a_subscription_and_says_why():
    with pytest.raises(NoSubscription, match="NOPERM no channels"):
        MessageParser(BOUND).feed(subscribed(b"a") + b"-NOPERM no channels\r\n")


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n", b"\0", b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n"])
def test_what_is_no_message_ends_a_subscription_before_it_is_long(junk):
    parser = MessageParser(BOUND)
    with pytest.raises(NoSubscription):
        for _ in range(MAX_HEAD_BYTES + 1):
            parser.feed(junk)

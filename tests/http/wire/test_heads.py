"""What RFC 9110 and RFC 9112 ask of a request's head beyond its syntax."""

import pytest

from registry.http.wire.heads import INVALID_HOST, MANY_HOSTS, NO_HOST, OTHER_VERSION, refusal_of, without_offer

VALID = [
    *(
        b"x",
        b"x:5000",
        b"x:",
        b"127.0.0.1:5000",
        b"[::1]",
        b"[::1]:5000",
        b"[::ffff:10.0.0.1]:1",
        b"a_b.c-d.example:65535",
    ),
    *(b"UPPER.example", b"xn--bcher-kva.example", b"a.example."),
]
INVALID = [
    *(b"", b" ", b"a b", b"a, b", b"a,b", b"a/b", b"http://a", b"user@a", b"a?b", b"a#b", b"<script>", b"a\\b", b'"a"'),
    *(
        b":5000",
        b"a:b",
        b"a:65536",
        b"a:123456",
        b"a:-1",
        b"a:1:2",
        b"::1",
        b"[::1",
        b"[]",
        b"[x]",
        b"[::1]x",
        b"a\xff",
        b"\xc3\xbc",
    ),
    *(b"a" * 256, b"a%", b"!", b"a\n"),
]


@pytest.mark.parametrize("host", VALID)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_valid_host_is_accepted(host, version):
    assert refusal_of(version, [(b"accept", b"*/*"), (b"host", host)]) is None


@pytest.mark.parametrize("host", INVALID)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_invalid_host_is_refused(host, version):
    assert refusal_of(version, [(b"host", host)]) == INVALID_HOST


def test_a_host_is_needed_in_http_1_1_alone_and_there_is_one_at_most():
    assert refusal_of("1.1", [(b"accept", b"*/*")]) == NO_HOST
    assert refusal_of("1.0", [(b"accept", b"*/*")]) is None
    for version in ("1.0", "1.1"):
        assert refusal_of(version, [(b"host", b"x"), (b"host", b"x")]) == MANY_HOSTS


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2"])
def test_another_version_is_refused(version):
    assert refusal_of(version, [(b"host", b"x")]) == OTHER_VERSION


def test_a_head_without_its_offer_has_all_its_other_fields_in_order():
    headers = [(b"host", b"x"), (b"upgrade", b"h2c"), (b"x", b""), (b"content-length", b"3"), (b"upgrade", b"tls")]
    expected = b"PUT /a?b=c HTTP/1.0\r\nhost: x\r\nx: \r\ncontent-length: 3\r\n\r\n"
    assert without_offer(b"PUT", b"/a?b=c", "1.0", headers) == expected

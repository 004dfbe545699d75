"""Addresses and host names that an operator writes down."""

import pytest

from registry.settings.addresses import InvalidAddress, is_wildcard, parse_address, parse_host_name, parse_instance_url


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("[::1]:5000", ("[::1]", 5000)),
        ("[::]:0", ("[::]", 0)),
        (":5000", ("", 5000)),
        ("a.example.com:65535", ("a.example.com", 65535)),
    ],
)
def test_parse_address_of_host_and_port_answers_both(text, parsed):
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "form"),
        ("host", "form"),
        ("host:", "form"),
        ("host:65536", "form"),
        ("host:٥", "form"),
        ("::1:5000", "brackets"),
        ("fe80::1:5000", "brackets"),
        ("[::1:5000", "brackets"),
        ("[host]:5000", "brackets"),
        ("[::g]:5000", "brackets"),
    ],
)
def test_parse_address_of_anything_else_says_which_part_is_wrong(text, part):
    with pytest.raises(InvalidAddress) as refused:
        parse_address(text)
    assert refused.value.part == part


def test_wildcards_are_those_of_both_families_however_they_are_written():
    assert all(is_wildcard(host) for host in ("", "0.0.0.0", "::", "[::]", "[0:0:0:0:0:0:0:0]"))
    assert not any(is_wildcard(host) for host in ("127.0.0.1", "[::1]", "localhost", "10.0.0.0"))


@pytest.mark.parametrize("text", ["http://a:5000", "https://a.example.com", "http://[::1]:5000", "http://a/below"])
def test_parse_instance_url_drops_a_trailing_slash(text):
    assert parse_instance_url(text + "/") == text


@pytest.mark.parametrize(
    "text", ["a:5000", "ftp://a", "http://", "http://a:x", "http://a:70000", "http://a?q", "http://[::1"]
)
def test_parse_instance_url_of_anything_else_is_refused(text):
    with pytest.raises(InvalidAddress):
        parse_instance_url(text)


def test_parse_instance_url_with_a_password_is_refused_without_showing_it():
    with pytest.raises(InvalidAddress) as refused:
        parse_instance_url("http://me:secret@a:5000?")
    assert refused.value.part == "login" and "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("registry.example.com", "registry.example.com"),
        ("Registry.Example.COM:5000", "registry.example.com:5000"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("[FE80::1]", "[fe80::1]"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_parse_host_name_answers_it_in_lower_case(text, name):
    assert parse_host_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "http://a",
        "a/b",
        "a b",
        "-a",
        "a-",
        "a..b",
        "a:",
        "a:70000",
        "a:b:1",
        "::1",
        "[a]",
        "a,b",
        "ä.example",
        "a\n",
        "",
    ],
)
def test_parse_host_name_of_anything_else_is_refused(text):
    with pytest.raises(InvalidAddress):
        parse_host_name(text)

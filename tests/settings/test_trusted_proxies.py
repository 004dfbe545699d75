"""Whose X-Forwarded-For is believed, and which address it is."""

import pytest

from registry.settings.trusted_proxies import TrustedProxies, client_network, parse_proxies

PROXY, OTHER_PROXY, CLIENT = "10.0.0.5", "10.0.0.6", "203.0.113.7"


def resolved(client, *fields, trusted=("10.0.0.0/8",)):
    headers = [(name.encode(), value.encode()) for name, value in fields]
    scope = {"client": client and (client, 1234), "scheme": "http", "headers": headers}
    TrustedProxies(parse_proxies(trusted)).resolve(scope)
    return scope["client"] and scope["client"][0], scope["scheme"]


def for_(value):
    return "x-forwarded-for", value


@pytest.mark.parametrize(
    ("peer", "field", "expected"),
    [
        (PROXY, CLIENT, CLIENT),
        (PROXY, f"{CLIENT}:4711", CLIENT),
        (PROXY, "[2001:db8::7]:4711", "2001:db8::7"),
        (PROXY, "2001:db8::7", "2001:db8::7"),
        (PROXY, f"{CLIENT}, {OTHER_PROXY}", CLIENT),
        (PROXY, f"1.1.1.1, {CLIENT}", CLIENT),  # the client has sent a field of its own
        (PROXY, f"1.1.1.1, {CLIENT}, {OTHER_PROXY}", CLIENT),
        (PROXY, f"nonsense, {OTHER_PROXY}", OTHER_PROXY),
        (PROXY, f"{CLIENT}, nonsense", PROXY),
        (PROXY, "unknown", PROXY),
        (PROXY, "", PROXY),
        (PROXY, "," * 100_000 + CLIENT, CLIENT),
        ("::ffff:10.0.0.5", CLIENT, CLIENT),
        (CLIENT, "1.1.1.1", CLIENT),  # no trusted proxy
        (None, CLIENT, None),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(peer, field, expected):
    assert resolved(peer, for_(field))[0] == expected


def test_several_fields_are_one_list():
    assert resolved(PROXY, for_("1.1.1.1"), for_(CLIENT), for_(OTHER_PROXY))[0] == CLIENT


def test_without_trusted_proxies_nothing_is_believed():
    fields = for_(CLIENT), ("x-forwarded-proto", "https")
    assert resolved(PROXY, *fields, trusted=()) == (PROXY, "http")
    assert resolved(CLIENT, *fields) == (CLIENT, "http")


def test_the_scheme_is_what_the_last_proxy_says():
    assert resolved(PROXY, ("x-forwarded-proto", "HTTPS"))[1] == "https"
    assert resolved(PROXY, ("x-forwarded-proto", "gopher"))[1] == "http"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        (CLIENT, "203.0.113.0/24"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
    ],
)
def test_clients_of_one_network_are_one(address, network):
    assert client_network({"client": (address, 1)}) == network
    assert client_network({"client": None}) == ""


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "nginx", ""])
def test_what_is_no_network_is_an_error_that_names_it(text):
    with pytest.raises(ValueError):
        parse_proxies([text])

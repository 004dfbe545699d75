"""Addresses of Redis servers: what they say, and what is refused."""

import pytest

from registry.settings.addresses import InvalidAddress
from registry.settings.redis_address import Sentinels, check_address, database_of, parse_sentinels, passwords, shown


def test_an_address_with_sentinels_says_everything():
    url = "rediss+sentinel://me:s%40cret@one,two:1234,[::1]:99/main/3?sentinel_password=hush&ssl_ca_certs=/ca"
    hosts = [("one", 26379), ("two", 1234), ("::1", 99)]
    assert parse_sentinels(url) == Sentinels(hosts, "main", 3, "me", "s@cret", "hush", True, "/ca")
    assert passwords(url) >= {"s%40cret", "s@cret", "hush"}
    assert shown(url) == "rediss+sentinel://one:26379,two:1234,[::1]:99/main", "and no secret"


def test_a_fragment_is_no_part_of_a_secret():
    assert "secretsecret" in passwords("redis://a?password=secretsecret#x")


@pytest.mark.parametrize("url", ["redis://a", "rediss://a:1/2", "unix:///run/redis", "redis+sentinel://a/main"])
def test_what_is_an_address(url):
    check_address(url)
    assert shown(url)


@pytest.mark.parametrize(
    ("url", "part"),
    [("http://a", "scheme"), ("redis://a:x", "port"), ("redis://", "host"), ("redis://a#b", "form"),
     ("redis+sentinel://a", "form"), ("redis+sentinel:///main", "form"), ("redis+sentinel://a:99999/main", "port"),
     ("redis+sentinel://a,/main", "host"), ("redis+sentinel://a/main/x", "form")],
)  # fmt: skip
def test_what_is_none_says_which_part_is_wrong(url, part):
    with pytest.raises(InvalidAddress) as refused:
        check_address(url)
    assert refused.value.part == part


@pytest.mark.parametrize("scheme", ["rediss://a/", "rediss+sentinel://a/main"])
def test_a_file_of_authorities_has_to_be_there(scheme, tmp_path):
    with pytest.raises(InvalidAddress) as absent:
        check_address(f"{scheme}?ssl_ca_certs=/nowhere")
    assert absent.value.part == "ssl_ca_certs"
    (tmp_path / "ca.pem").touch()
    check_address(f"{scheme}?ssl_ca_certs={tmp_path / 'ca.pem'}")
    with pytest.raises(InvalidAddress) as without_tls:
        check_address(f"{scheme.replace('rediss', 'redis')}?ssl_ca_certs={tmp_path / 'ca.pem'}")
    assert without_tls.value.part == "ssl_ca_certs"


@pytest.mark.parametrize(
    ("url", "database"),
    [("redis://a", 0), ("redis://a/", 0), ("rediss://a:1/12", 12), ("unix:///run/redis", 0), ("unix:///redis?db=2", 2),
     ("redis://a?db=3", 3), ("redis+sentinel://a/main", 0), ("redis+sentinel://a/main/4", 4)],
)  # fmt: skip
def test_database_of_an_address_is_its_number(url, database):
    check_address(url)
    assert database_of(url) == database


@pytest.mark.parametrize("url", ["redis://a/x", "redis://a/1/2", "redis://a/-1", "redis://a?db=x", "redis://a/\u0661"])
def test_database_that_is_no_number_is_refused(url):
    with pytest.raises(InvalidAddress) as refused:
        check_address(url)
    assert refused.value.part == "database"

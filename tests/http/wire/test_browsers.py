"""What a page of another site can make a browser send, as headers."""

import pytest
from starlette.datastructures import Headers

from registry.config import Config
from registry.errors import Denied, Unsupported
from registry.http.wire.browsers import (
    host_name,
    own_names,
    refuse_form_types,
    refuse_other_hosts,
    refuse_other_sites,
    refuse_posts_of_other_sites,
)
from registry.settings.addresses import is_loopback


def headers(*fields):
    return Headers(raw=[(name.encode(), value.encode()) for name, value in fields])


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "unheard-of", ""])
def test_sec_fetch_site_of_another_site_is_refused(site):
    with pytest.raises(Denied) as refused:
        refuse_other_sites(headers(("sec-fetch-site", site)))
    assert refused.value.detail["reason"] == "cross-site"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://a.example:81", "http://[", "file://", "a.example", "//", "http://"],
)
def test_an_origin_that_is_not_the_host_is_refused(origin):
    with pytest.raises(Denied) as refused:
        refuse_other_sites(headers(("host", "a.example"), ("origin", origin)))
    assert refused.value.detail["reason"] == "cross-origin"


def test_an_origin_without_any_host_is_refused():
    with pytest.raises(Denied) as refused:
        refuse_other_sites(headers(("origin", "null")))
    assert refused.value.detail["reason"] == "cross-origin"


def test_one_foreign_value_among_several_is_refused():
    with pytest.raises(Denied):
        refuse_other_sites(headers(("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")))
    with pytest.raises(Denied):
        refuse_other_sites(headers(("host", "a"), ("origin", "http://a"), ("origin", "http://b")))


def test_requests_without_a_page_and_of_the_own_page_are_not_refused():
    refuse_other_sites(headers(("host", "a.example:5000")))
    refuse_other_sites(headers(("host", "a.example:5000"), ("sec-fetch-site", "none")))
    own = ("origin", "http://A.example:5000"), ("sec-fetch-site", "same-origin")
    refuse_other_sites(headers(("host", "a.example:5000"), *own))


def test_a_post_of_the_own_page_may_come_through_a_proxy_that_changes_the_host():
    page = ("origin", "https://ui.example"), ("host", "10.0.0.5:5000")
    refuse_posts_of_other_sites(headers(*page, ("sec-fetch-site", "same-origin")))
    for site in ("cross-site", "same-site"):
        with pytest.raises(Denied):
            refuse_posts_of_other_sites(headers(*page, ("sec-fetch-site", site)))
    with pytest.raises(Denied):
        refuse_posts_of_other_sites(headers(*page))


@pytest.mark.parametrize(
    "value", ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_types_that_a_form_has_are_refused(value):
    with pytest.raises(Unsupported) as refused:
        refuse_form_types(headers(("content-type", value)))
    assert (refused.value.status, refused.value.detail["reason"]) == (415, "content-type")


def test_json_and_no_type_at_all_are_taken():
    refuse_form_types(headers(("content-type", "Application/JSON; charset=utf-8")))
    refuse_form_types(headers())


@pytest.mark.parametrize(
    "host",
    ["rebound.example", "rebound.example:5000", "", "127.0.0.1.rebound.example", "localhost.evil", "[", "a@[::1]"],
)
def test_a_host_that_could_have_been_rebound_is_refused(host):
    with pytest.raises(Denied) as refused:
        refuse_other_hosts(headers(("host", host)), {"registry.example"})
    assert refused.value.detail["reason"] == "unknown-host"


def test_several_hosts_and_no_host_are_refused():
    for fields in ([], [("host", "localhost"), ("host", "evil.example")]):
        with pytest.raises(Denied):
            refuse_other_hosts(headers(*fields), frozenset())


@pytest.mark.parametrize("host", ["10.1.0.5:5001", "[::1]:5001", "[fd00::1]", "LOCALHOST:5001", "registry.example."])
def test_addresses_and_own_names_are_not_refused(host):
    refuse_other_hosts(headers(("host", host)), {"registry.example"})


def test_own_names_are_those_that_the_operator_has_set(monkeypatch):
    config = Config.model_construct(
        listen="0.0.0.0:5000", listen_internal="node-1:5001", advertise="http://Node-1.site:5001",
        advertise_site="https://eu.example", name=["registry.example.com", "other:5000"],
    )  # fmt: skip
    names = {"0.0.0.0", "node-1", "node-1.site", "eu.example", "registry.example.com", "other"}
    assert own_names(config) == names


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_loopback_addresses_are_local(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "::2", "", "localhost.example", "127.0.0.1.example", "0.0.0.0"])
def test_other_addresses_are_not_local(host):
    assert not is_loopback(host)


def test_the_host_is_read_without_its_port():
    assert host_name(headers(("host", "[::1]:5000"))) == "::1"
    assert host_name(headers(("host", "A.example:5000"))) == "a.example"

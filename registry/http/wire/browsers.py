"""Requests that a web page makes a user's browser send (cross-site request forgery, DNS rebinding).

A browser inside a private network reaches what its user reaches. A page of any site can have it send simple requests
there, without a preflight and without reading the answers; a page whose own name is then resolved to another address
(DNS rebinding) can send and read anything, as if it were of the same site. Four headers tell:

 - `Sec-Fetch-Site` says whether a page of another site caused the request (Fetch Metadata);
 - `Origin` says which one, also where the first is missing because the page came over plain HTTP (RFC 6454);
 - `Content-Type` is one of three form types for what needs no preflight, so JSON alone is taken;
 - `Host` is the name under which a rebound page was loaded: an address, or a name that the instance goes by, cannot be
   rebound by a stranger.

Command-line clients send neither of the first two. These checks are independent of who asks, and hold for accounts too.
"""

from collections.abc import Set as AbstractSet
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from registry.config import Config
from registry.errors import Denied, Unsupported
from registry.settings.addresses import ip_of

JSON = "application/json"
OWN_SITES = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site`: a page of the instance itself, or no page at all."""


def refuse_other_sites(headers: Headers) -> None:
    """Raise Denied for a request that a page of another origin has caused."""
    if any(site.strip().lower() not in OWN_SITES for site in headers.getlist("sec-fetch-site")):
        raise Denied("a web page of another site made a browser send this (Sec-Fetch-Site)", {"reason": "cross-site"})
    host = headers.get("host", "").strip().lower()
    for origin in headers.getlist("origin"):
        authority = _authority(origin)
        if not authority or authority != host:
            raise Denied("a web page of another origin made a browser send this (Origin)", {"reason": "cross-origin"})


def refuse_posts_of_other_sites(headers: Headers) -> None:
    """Raise Denied for a POST that a page of another site made a browser send, where pages of the own site may come
    through a proxy that changes `Host`: what `Sec-Fetch-Site` says decides, and `Origin` where it says nothing."""
    if "sec-fetch-site" in headers:
        headers = Headers(raw=[(name, value) for name, value in headers.raw if name != b"origin"])
    refuse_other_sites(headers)


def refuse_form_types(headers: Headers) -> None:
    """Raise Unsupported (415) for a body of a type that a page may send without a preflight."""
    for value in headers.getlist("content-type"):
        if value.partition(";")[0].strip().lower() != JSON:
            raise Unsupported(f"invalid Content-Type: expected {JSON}", 415, detail={"reason": "content-type"})


def refuse_other_hosts(headers: Headers, names: AbstractSet[str]) -> None:
    """Raise Denied where `Host` is no IP address, no `localhost` and none of `names`."""
    host = host_name(headers)
    if host in names or host == "localhost" or (host and ip_of(host) is not None):
        return
    raise Denied(
        f"this instance does not go by the name {host[:255]!r} (Host); use its IP address or the host of "
        "--advertise, or sign with the cluster key",
        {"reason": "unknown-host"},
    )


def host_name(headers: Headers) -> str:
    """Return the host of the only `Host` header, without its port, in lower case; empty where there is no such one."""
    hosts = headers.getlist("host")
    return _host(f"//{hosts[0].strip()}") if len(hosts) == 1 and "@" not in hosts[0] else ""


def own_names(config: Config) -> frozenset[str]:
    """Return the host names that an operator has given to an instance."""
    urls = [config.advertise, config.advertise_site]
    urls += [f"//{name}" for name in (*config.name, config.listen, config.listen_internal)]
    return frozenset(filter(None, map(_host, urls)))


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """Return host and port of an origin; empty for `null` and for what is malformed."""
    try:
        return urlsplit(origin.strip()).netloc.lower()
    except ValueError:
        return ""

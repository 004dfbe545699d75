"""The paths of the OCI distribution API ("Endpoints").

Repository names contain slashes, so a path is read from its end: what stands before `/manifests/…`, `/blobs/…`,
`/blobs/uploads/…`, `/tags/list` or `/referrers/…` is the name, whatever it consists of.
"""

from typing import NamedTuple

PREFIX = "/v2/"
TOKEN_PATH = "/v2/token"
"""Clients take it from a challenge. No repository's path has its form."""
API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}

TEMPLATES = {
    "base": "/v2/",
    "catalog": "/v2/_catalog",
    "token": TOKEN_PATH,
    "tags": "/v2/<name>/tags/list",
    "referrers": "/v2/<name>/referrers/<digest>",
    "manifest": "/v2/<name>/manifests/<reference>",
    "blob": "/v2/<name>/blobs/<digest>",
    "uploads": "/v2/<name>/blobs/uploads/",
    "upload": "/v2/<name>/blobs/uploads/<id>",
    "": "other",
}
"""Path templates by resource, which label metrics."""


class Path(NamedTuple):
    """A parsed path of the API."""

    resource: str
    """base, catalog, token, tags, referrers, manifest, blob, uploads or upload; empty where there is no such path."""
    name: str
    reference: str


def parse_path(path: str) -> Path:
    """Parse a path. Names and references are not checked."""
    rest = path.removeprefix(PREFIX) if path != "/v2" else ""
    if not rest:
        return Path("base", "", "")
    if rest == "_catalog":
        return Path("catalog", "", "")
    if path == TOKEN_PATH:
        return Path("token", "", "")
    match rest.rsplit("/", 2):
        case [name, "tags", "list"]:
            return Path("tags", name, "")
        case [name, "manifests", reference]:
            return Path("manifest", name, reference)
        case [name, "referrers", reference]:
            return Path("referrers", name, reference)
        case [name, "blobs", "uploads"]:
            return Path("uploads", name, "")
        case [name, "blobs", reference]:
            return Path("blob", name, reference)
        case [name, "uploads", ""] if name.endswith("/blobs"):
            return Path("uploads", name.removesuffix("/blobs"), "")
        case [name, "uploads", reference] if name.endswith("/blobs"):
            return Path("upload", name.removesuffix("/blobs"), reference)
    return Path("", "", "")


def parse_api_path(path: str) -> Path | None:
    """Parse a path of the API; return None for any other path."""
    return parse_path(path) if path == "/v2" or path.startswith(PREFIX) else None

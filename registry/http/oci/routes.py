"""The paths of the OCI distribution API ("Endpoints").

Repository names contain slashes, so a path is read from its end: what stands before `/manifests/…`, `/blobs/…`,
`/blobs/uploads/…`, `/tags/list` or `/referrers/…` is the name, whatever it consists of.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from registry.catalog.queries import KIND
from registry.catalog.understanding import require_understood
from registry.errors import NameUnknown, Unsupported
from registry.http.oci import blobs, manifests, referrers, tags, uploads
from registry.http.oci.answers import JsonResponse
from registry.http.oci.context import OciContext
from registry.http.wire.browsers import refuse_posts_of_other_sites
from registry.oci.names import parse_digest, parse_repository

PREFIX = "/v2/"
API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}


TEMPLATES = {
    "base": "/v2/",
    "catalog": "/v2/_catalog",
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
    """base, catalog, tags, referrers, manifest, blob, uploads or upload; empty where the API has no such path."""
    name: str
    reference: str


def parse_path(path: str) -> Path:
    """Parse a path. Names and references are not checked."""
    rest = path.removeprefix(PREFIX) if path != "/v2" else ""
    if not rest:
        return Path("base", "", "")
    if rest == "_catalog":
        return Path("catalog", "", "")
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


Handler = Callable[[OciContext, Request, Path], Awaitable[Response]]


async def _base(context: OciContext, request: Request, path: Path) -> Response:
    return JsonResponse({}, headers=API_VERSION)


async def _catalog(context: OciContext, request: Request, path: Path) -> Response:
    return await tags.list_repositories(context.lists, request)


async def _tags(context: OciContext, request: Request, path: Path) -> Response:
    return await tags.list_tags(context.lists, request, parse_repository(path.name))


async def _referrers(context: OciContext, request: Request, path: Path) -> Response:
    repository = parse_repository(path.name)
    return await referrers.list_referrers(context.lists, request, repository, parse_digest(path.reference))


async def _get_manifest(context: OciContext, request: Request, path: Path) -> Response:
    return await manifests.get(context.manifests, request, parse_repository(path.name), path.reference)


async def _put_manifest(context: OciContext, request: Request, path: Path) -> Response:
    return await manifests.put(context.manifests, request, parse_repository(path.name), path.reference)


async def _delete_manifest(context: OciContext, request: Request, path: Path) -> Response:
    return await manifests.delete(context.manifests, request, parse_repository(path.name), path.reference)


async def _get_blob(context: OciContext, request: Request, path: Path) -> Response:
    return await blobs.get_blob(context.blobs, request, parse_repository(path.name), parse_digest(path.reference))


async def _delete_blob(context: OciContext, request: Request, path: Path) -> Response:
    return await blobs.delete(context.blobs, request, parse_repository(path.name), parse_digest(path.reference))


async def _begin_upload(context: OciContext, request: Request, path: Path) -> Response:
    return await uploads.begin(context.uploads, request, parse_repository(path.name))


async def _continue_upload(context: OciContext, request: Request, path: Path) -> Response:
    return await uploads.continue_upload(context.uploads, request, parse_repository(path.name), path.reference)


HANDLERS: dict[str, dict[str, Handler]] = {
    "base": {"GET": _base},
    "catalog": {"GET": _catalog},
    "tags": {"GET": _tags},
    "referrers": {"GET": _referrers},
    "manifest": {"GET": _get_manifest, "PUT": _put_manifest, "DELETE": _delete_manifest},
    "blob": {"GET": _get_blob, "DELETE": _delete_blob},
    "uploads": {"POST": _begin_upload},
    "upload": {
        "GET": _continue_upload,
        "PATCH": _continue_upload,
        "PUT": _continue_upload,
        "DELETE": _continue_upload,
    },
}
SUMMARIES: dict[str, dict[str, str]] = {
    "base": {"GET": "Return 200: this registry speaks version 2 of the API."},
    "catalog": {"GET": "List repositories, in pages by `n` and `last`."},
    "tags": {"GET": "List the tags of a repository, in pages by `n` and `last`."},
    "referrers": {"GET": "List the manifests whose subject is this digest, filtered by `artifactType`."},
    "manifest": {
        "GET": "Return a manifest by tag or digest.",
        "PUT": "Push a manifest. It is answered 201 once the site has committed it and its write concern is met.",
        "DELETE": "Delete a tag; by digest, a manifest and every tag that points at it.",
    },
    "blob": {
        "GET": "Return a blob or ranges of it, fetched from a holder if it is not here.",
        "DELETE": "Delete the link of a blob to this repository.",
    },
    "uploads": {
        "POST": "Begin an upload, or push the body at once with `digest`. `mount` and `from` link a blob that is there."
    },
    "upload": {
        "GET": "Return how many bytes of the upload are durable.",
        "PATCH": "Append a chunk, or stream the whole blob.",
        "PUT": "End the upload: verify the blob against `digest` and link it.",
        "DELETE": "Cancel the upload.",
    },
}
"""A summary of each handler, by resource and method: the reference is generated from this."""
for _handlers in HANDLERS.values():
    if "GET" in _handlers:
        _handlers["HEAD"] = _handlers["GET"]  # the server sends no body to HEAD


async def answer(context: OciContext, request: Request, path: Path) -> Response:
    """Answer one request of the OCI API. Raises OciError."""
    # Most requests have no query, and reading one takes longer than finding a path's handler.
    namespace = request.query_params.get("ns") if request.scope["query_string"] else None
    if namespace is not None and namespace.lower() not in context.namespaces:
        raise NameUnknown(
            f"unknown namespace (ns): this registry does not serve {namespace[:255]!r}", {"ns": namespace[:255]}
        )
    handlers = HANDLERS.get(path.resource)
    if handlers is None:
        raise Unsupported("the API has no such path", 404)
    handler = handlers.get(request.method)
    if handler is None:
        allowed = {"Allow": ", ".join(sorted(handlers))}
        raise Unsupported(f"{request.method} is not supported for this path: expected {allowed['Allow']}", 405, allowed)
    if request.method in ("GET", "HEAD"):
        _require_understood(context, path)
        return await handler(context, request, path)
    if request.method == "POST":  # browsers ask with a preflight, which is never answered, before all other writes
        refuse_posts_of_other_sites(request.headers)
    with context.decommission.writing(), context.refusals.noting(path.name, request.method):
        _require_understood(context, path)
        return await handler(context, request, path)


def _require_understood(context: OciContext, path: Path) -> None:
    """Raise NeedsUpgrade where an answer would depend on facts that this version does not understand. Writes look once
    more in their transaction, and lists of repositories at each page."""
    if path.resource != "catalog":
        require_understood(context.database, KIND + path.name)

"""The routes of the OCI distribution API: which handler answers a path and a method, and what is checked before."""

from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.catalog.queries import KIND, document_name
from registry.catalog.understanding import require_understood
from registry.errors import NameUnknown, Unsupported
from registry.http.access.token_endpoint import TokenEndpoint
from registry.http.oci import blobs, manifests, referrers, tags, uploads
from registry.http.oci.answers import JsonResponse
from registry.http.oci.context import OciContext, OwnUploadContext
from registry.http.oci.paths import API_VERSION, Path
from registry.http.wire.browsers import refuse_posts_of_other_sites
from registry.oci.names import parse_digest, parse_repository

Handler = Callable[[OciContext, Request, Path], Awaitable[Response]]


async def _base(context: OciContext, request: Request, path: Path) -> Response:
    return JsonResponse({}, headers=API_VERSION)


async def _catalog(context: OciContext, request: Request, path: Path) -> Response:
    return await tags.list_repositories(context.lists, request)


async def _token(context: OciContext, request: Request, path: Path) -> Response:
    return await answer_token_request(context.tokens, request)


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
    "token": {"GET": _token, "POST": _token},
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
    "token": {
        "GET": "Return a token for the scopes that are asked for, as far as the caller has a right to them. Absent "
        "where access control is not enforced.",
        "POST": "Return a token for a password, or for a refresh token, in a form (OAuth 2.0).",
    },
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
    _check_namespace(request, context.namespaces)
    handlers = HANDLERS.get(path.resource)
    if handlers is None:
        raise Unsupported("the API has no such path", 404)
    handler = handlers.get(request.method)
    if handler is None:
        raise _unsupported(request.method, handlers)
    if request.method in ("GET", "HEAD"):
        _require_understood(context, path)
        return await handler(context, request, path)
    if request.method == "POST":  # browsers ask with a preflight, which is never answered, before all other writes
        refuse_posts_of_other_sites(request.headers)
    with context.decommission.writing(), context.refusals.noting(path.name, request.method):
        _require_understood(context, path)
        return await handler(context, request, path)


async def relayed(context: OciContext, path: Path, scope: Scope, receive: Receive, send: Send) -> bool:
    """Relay a request for an upload to the process that is its home. Return False where this process is."""
    return await uploads.relayed(context.uploads, path, scope, receive, send)


async def answer_token_request(tokens: TokenEndpoint, request: Request) -> Response:
    """Answer a request for a token, in any process. Raises OciError."""
    handlers = HANDLERS["token"]
    if request.method not in handlers:
        raise _unsupported(request.method, handlers)
    if request.method == "POST":
        refuse_posts_of_other_sites(request.headers)
    return await tokens.answer(request)


async def answer_own_upload(context: OwnUploadContext, request: Request, path: Path) -> Response:
    """Answer a request for an upload whose home this process is, which may be a worker. Raises OciError."""
    if request.method == "POST":
        refuse_posts_of_other_sites(request.headers)
    _check_namespace(request, context.namespaces)
    with context.refusals.noting(path.name, request.method):
        repository = parse_repository(path.name)
        require_understood(context.database, document_name(repository))
        if path.resource == "uploads":
            return await uploads.begin_own(context, request, repository)
        return await uploads.continue_own(context, request, repository, path.reference)


def _unsupported(method: str, handlers: Mapping[str, Handler]) -> Unsupported:
    allowed = {"Allow": ", ".join(sorted(handlers))}
    return Unsupported(f"{method} is not supported for this path: expected {allowed['Allow']}", 405, allowed)


def _check_namespace(request: Request, namespaces: Collection[str]) -> None:
    """Raise NameUnknown where the parameter `ns` names a registry that is not served here."""
    # Most requests have no query, and reading one takes longer than finding a path's handler.
    namespace = request.query_params.get("ns") if request.scope["query_string"] else None
    if namespace is not None and namespace.lower() not in namespaces:
        raise NameUnknown(
            f"unknown namespace (ns): this registry does not serve {namespace[:255]!r}", {"ns": namespace[:255]}
        )


def _require_understood(context: OciContext, path: Path) -> None:
    """Raise NeedsUpgrade where an answer would depend on facts that this version does not understand. Writes look once
    more in their transaction, and lists of repositories at each page."""
    if path.resource != "catalog":
        require_understood(context.database, KIND + path.name)

"""Lists of tags and of repositories (OCI distribution specification, "Listing Tags"; Docker's catalog)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from registry.access.patterns import EVERYTHING
from registry.access.rights import Right
from registry.catalog.queries import document_name
from registry.catalog.understanding import require_understood, require_understood_after
from registry.errors import NameUnknown
from registry.http.access.admission import Permissions, permissions_of
from registry.http.oci.answers import StreamResponse, list_page
from registry.http.oci.context import ListContext
from registry.http.wire.request import count_parameter
from registry.oci.names import Repository

PAGE = 1000
NAMES_A_STEP = 200
"""Repositories of which is decided whether a caller may see them before the loop turns."""


async def list_tags(context: ListContext, request: Request, repository: Repository) -> Response:
    """GET of a repository's tags: all of them, or `n` after `last`."""
    queries = context.queries
    if not queries.repository_exists(repository):
        await context.replication.read_repair(repository)
        if not queries.repository_exists(repository):
            raise NameUnknown("there is no such repository", {"name": repository})
    return _listed(
        request,
        f"/v2/{repository}/tags/list",
        {"name": repository},
        "tags",
        lambda after, limit: list(queries.tags(repository, after, limit)),
    )


async def list_repositories(context: ListContext, request: Request) -> Response:
    """GET of `_catalog`, paged in the same way. A page that would name a repository that this version does not
    understand is refused, since a client that does not find a repository in a list takes it for deleted."""
    permissions = permissions_of(request.scope)
    if permissions is not None and not permissions.has(EVERYTHING, Right.PULL):
        return await _list_visible(context, request, permissions)
    database, queries = context.database, context.queries

    def page(after: str, limit: int) -> list[str]:
        with database.one_step():
            names = queries.repositories(after, limit)
            require_understood_after(database, after, names[-1] if len(names) == limit else "")
        return list(names)

    if "n" not in request.query_params:  # refused as a whole, before its first page is sent
        require_understood_after(database, request.query_params.get("last", ""))
    return _listed(request, "/v2/_catalog", {}, "repositories", page)


async def _list_visible(context: ListContext, request: Request, permissions: Permissions) -> Response:
    """GET of `_catalog` for a caller that may pull from some repositories alone. Neither the answer nor a refusal names
    another one."""
    count = count_parameter(request)
    after = request.query_params.get("last", "")
    names = _visible(context, permissions, after)
    if count is None:
        return StreamResponse(_stream_names(names), 200, {"Content-Type": "application/json"})
    page: list[str] = []
    if count:
        async for name in names:
            page.append(name)
            if len(page) > count:
                break
    body, headers = list_page("/v2/_catalog", {}, "repositories", page, count)
    return Response(body, headers=headers)


async def _visible(context: ListContext, permissions: Permissions, after: str) -> AsyncGenerator[str, None]:
    """Yield the repositories after a name that the caller may pull from. The loop turns after each bounded step.
    Raises NeedsUpgrade for one that this version does not understand."""
    database, queries = context.database, context.queries
    if not permissions.may_see_any:
        return
    while names := queries.repositories(after, NAMES_A_STEP):
        for name in names:
            if permissions.has(name, Right.PULL):
                require_understood(database, document_name(name))
                yield name
        after = names[-1]
        await asyncio.sleep(0)


async def _stream_names(names: AsyncGenerator[str, None]) -> AsyncIterator[bytes]:
    separator = b'{"repositories":['
    async for name in names:
        yield separator + msgspec.json.encode(name)
        separator = b","
    yield (separator if separator != b"," else b"") + b"]}"


def _listed(
    request: Request, path: str, head: dict[str, str], key: str, page: Callable[[str, int], list[str]]
) -> Response:
    count = count_parameter(request)
    last = request.query_params.get("last", "")
    if count is None:
        return StreamResponse(_stream(head, key, page, last), 200, {"Content-Type": "application/json"})
    body, headers = list_page(path, head, key, page(last, count + 1) if count else [], count)
    return Response(body, headers=headers)


async def _stream(
    head: dict[str, str], key: str, page: Callable[[str, int], list[str]], last: str
) -> AsyncIterator[bytes]:
    """A JSON object with one long list, written page by page: a million names take no more memory than a thousand."""
    yield msgspec.json.encode(head)[:-1] + (b"," if head else b"") + f'"{key}":['.encode()
    separator = b""
    while names := page(last, PAGE):
        yield separator + msgspec.json.encode(names)[1:-1]
        separator, last = b",", names[-1]
    yield b"]}"

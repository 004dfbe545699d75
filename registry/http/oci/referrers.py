"""Referrers of a manifest (OCI distribution specification, "Listing Referrers" and "Referrers Tag Schema").

One page holds as many bytes as one manifest may, so that a client that reads only the first page finds all referrers up
to that size, and the newest beyond it.
"""

import apsw
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from registry.catalog.referrers import (
    BEGINNING,
    Listed,
    Position,
    Referrer,
    ReferrersQuery,
    has_few_referrers,
    walk_referrers,
)
from registry.errors import Unsupported
from registry.http.oci.answers import next_link
from registry.http.oci.context import ListContext
from registry.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX
from registry.oci.names import Digest, Repository

PAGE_BYTES = MAX_MANIFEST_BYTES
_HEAD = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":['.encode()
_TAIL = b"]}"


class Page(msgspec.Struct):
    """One page of a list: its entries as JSON, and where the next page begins, if there is one."""

    entries: list[bytes]
    behind: Position | None


async def list_referrers(context: ListContext, request: Request, repository: Repository, subject: Digest) -> Response:
    """GET of a manifest's referrers, filtered by artifactType if the request names one."""
    wanted = request.query_params.get("artifactType")
    last = request.query_params.get("last")
    position = BEGINNING if last is None else Position.parse(last)
    if position is None:
        raise Unsupported('invalid "last": expected the one of a link to a next page', 400)
    database = context.database
    if not context.queries.repository_exists(repository):
        await context.replication.read_repair(repository)
    query = ReferrersQuery(repository, subject, wanted, position)
    with database.one_step():
        page = _page(database.reading, query) if has_few_referrers(database, query) else None
    if page is None:
        page = await database.read_aside(lambda connection: _page(connection, query))
    headers = {"Content-Type": OCI_INDEX}
    if wanted is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
    if page.behind is not None:
        parameters = {"last": page.behind.text()} | ({"artifactType": wanted} if wanted is not None else {})
        headers |= next_link(f"/v2/{repository}/referrers/{subject}", parameters)
    return Response(_HEAD + b",".join(page.entries) + _TAIL, headers=headers)


def _page(connection: apsw.Connection, query: ReferrersQuery) -> Page:
    """Read as many entries as a page holds, at least one where there are any."""
    size = len(_HEAD) + len(_TAIL)
    entries: list[bytes] = []
    before: Listed | None = None
    for listed in walk_referrers(connection, query):
        entry = _descriptor(listed.referrer)
        size += len(entry) + 1
        if before is not None and size > PAGE_BYTES:
            return Page(entries, before.behind)
        entries.append(entry)
        before = listed
    return Page(entries, None)


def _descriptor(row: Referrer) -> bytes:
    descriptor: dict[str, object] = {"mediaType": row.media_type, "digest": row.digest, "size": row.size}
    if row.artifact_type:
        descriptor["artifactType"] = row.artifact_type
    if row.annotations:
        descriptor["annotations"] = msgspec.Raw(row.annotations)
    return msgspec.json.encode(descriptor)

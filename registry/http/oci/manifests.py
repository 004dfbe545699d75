"""Pulling, pushing and deleting manifests and tags (OCI distribution specification, "Pulling manifests", "Pushing
Manifests", "Deleting tags", "Deleting Manifests")."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from crdt.change import Change
from registry.catalog.database import Transaction
from registry.catalog.queries import ManifestRow
from registry.catalog.repository import Pushed, delete_manifest, delete_tag, push_manifest
from registry.errors import (
    ContentUnreachable,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    TooManyTags,
)
from registry.event_loop.now import now_s
from registry.event_loop.steps import ROWS_PER_STEP, Steps, run_in_steps
from registry.http.access.admission import require_push
from registry.http.oci.answers import missing_manifest
from registry.http.oci.conditions import content_headers, etag_of, matches
from registry.http.oci.context import ManifestContext
from registry.http.wire.request import media_type, small_body
from registry.oci.manifest import MAX_MANIFEST_BYTES, Manifest, read_pushed
from registry.oci.names import Digest, Repository, Tag, algorithm_of, digest_of, is_tag, parse_digest, parse_tag

MAX_TAGS = 100
RETRY_INTERVAL_S = 0.5


async def get(context: ManifestContext, request: Request, repository: Repository, reference: str) -> Response:
    """GET and HEAD of a manifest by tag or digest. Accept does not change the answer."""
    row = _find(context, repository, reference)
    if row is None:
        await context.replication.read_repair(repository)
        row = _find(context, repository, reference)
    if row is None:
        raise missing_manifest(reference)
    headers = content_headers(row.digest)
    if matches(request.headers.get("if-none-match"), etag_of(row.digest)):
        return Response(status_code=304, headers=headers)
    headers["Content-Type"] = row.media_type
    if request.method == "HEAD":
        body = row.body if row.body is not None else await context.bodies.fetch(row.digest)
        return Response(headers=headers | {"Content-Length": str(row.size if body is None else len(body))})
    body = await context.bodies.checked(row.digest, row.body) if row.body is not None else None
    return Response(body or await _body_from_peers(context, repository, row), headers=headers)


def _find(context: ManifestContext, repository: Repository, reference: str) -> ManifestRow | None:
    queries = context.queries
    if ":" in reference:
        return queries.manifest(repository, parse_digest(reference))
    return queries.manifest_by_tag(repository, reference) if is_tag(reference) else None


async def _body_from_peers(context: ManifestContext, repository: Repository, row: ManifestRow) -> bytes:
    """Return a body that is on its way here. Waits for a member that has it. Raises ContentUnreachable; ManifestUnknown
    when the manifest is deleted meanwhile."""
    deadline = now_s() + context.holder_wait_s
    while True:
        body = await context.bodies.fetch(row.digest)
        if body is not None:
            return body
        if context.queries.manifest(repository, row.digest) is None:
            raise ManifestUnknown("it was deleted before its body came", {"reference": row.digest})
        if now_s() > deadline or not context.members.all():
            uploader = context.queries.instance_of(row.writer)
            raise ContentUnreachable(
                f"{row.digest} cannot be fetched now: {context.locator.whereabouts(uploader)}",
                {"digest": row.digest, "instance": uploader},
                code="MANIFEST_UNKNOWN",
            )
        await asyncio.sleep(RETRY_INTERVAL_S)


async def put(context: ManifestContext, request: Request, repository: Repository, reference: str) -> Response:
    """PUT of a manifest by tag, or by digest with any number of tags."""
    by_digest = ":" in reference
    digest = parse_digest(reference) if by_digest else None
    tags = _tags(request) if by_digest else [parse_tag(reference)]
    too_large = ManifestTooLarge(f"a manifest may have {MAX_MANIFEST_BYTES} bytes")
    async with context.memory.reserve() as reservation:
        body = await reservation.whole(small_body(request, MAX_MANIFEST_BYTES, too_large, reservation.take))
        computed = digest_of(body, algorithm_of(digest) if digest else "sha256")
        if digest is not None and computed != digest:
            raise DigestInvalid(
                f"the manifest does not match the digest in the path: its digest is {computed}", {"digest": digest}
            )
        manifest = await run_in_steps(read_pushed(body, media_type(request)))
        require_push(request.scope, repository)  # the body may have taken long
        change = await _push(context, repository, Pushed(computed, body, manifest, tags))
    await context.replication.await_acknowledgements(change)
    del body  # from here on the push waits for holders, and keeps no body in memory meanwhile
    change = change._replace(bodies=())
    await context.write_concern.wait(repository, computed, change)
    headers = {"Location": f"/v2/{repository}/manifests/{reference}", "Docker-Content-Digest": computed}
    if manifest.subject is not None:
        headers["OCI-Subject"] = manifest.subject
    response = Response(status_code=201, headers=headers)
    if by_digest:
        for tag in tags:
            response.headers.append("OCI-Tag", tag)
    return response


def _tags(request: Request) -> list[Tag]:
    tags = [parse_tag(tag) for tag in request.query_params.getlist("tag")]
    if len(tags) > MAX_TAGS:
        raise TooManyTags(f"too many tags in one request: expected at most {MAX_TAGS}")
    return tags


async def _push(context: ManifestContext, repository: Repository, pushed: Pushed) -> Change:
    """Commit a push. On a miss, read repair runs first, in case a member knows more."""
    now, sparse = context.clock.now_ms(), context.sparse
    await _fetch_children(context, repository, pushed.manifest)

    def push(tx: Transaction) -> Steps[Change]:
        return push_manifest(tx, context.documents, repository, pushed, sparse, now)

    try:
        return await context.database.write_in_steps(push)
    except ManifestBlobUnknown:
        await context.replication.read_repair(repository)
        return await context.database.write_in_steps(push)


async def _fetch_children(context: ManifestContext, repository: Repository, manifest: Manifest) -> None:
    """A push of an index also re-asserts what its children refer to, so the bodies of its children have to be here."""
    for at in range(0, len(manifest.children), ROWS_PER_STEP):
        page = [part.digest for part in manifest.children[at : at + ROWS_PER_STEP]]
        for digest in context.queries.without_body(repository, page):
            await context.bodies.fetch(digest)
        if len(page) == ROWS_PER_STEP:
            await asyncio.sleep(0)


async def delete(context: ManifestContext, request: Request, repository: Repository, reference: str) -> Response:
    """DELETE of a tag, or of a manifest and all its tags."""
    digest: Digest | None = parse_digest(reference) if ":" in reference else None
    if digest is None and not is_tag(reference):
        raise ManifestInvalid("invalid tag or digest in the path", {"tag": reference[:200]})
    await context.replication.sync_before_delete(repository)
    documents = context.documents

    def remove(tx: Transaction) -> Steps[Change]:
        if digest is not None:
            return (yield from delete_manifest(tx, documents, repository, digest))
        return delete_tag(tx, documents, repository, Tag(reference))

    await context.replication.await_acknowledgements(await context.database.write_in_steps(remove))
    return Response(status_code=202)

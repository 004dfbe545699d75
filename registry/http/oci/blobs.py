"""Pulling, mounting and deleting blobs (OCI distribution specification, "Pulling blobs", "Mounting a blob", "Deleting
Blobs").

A blob can be read where a live fact links it, whether or not its bytes are here. GET of content that is elsewhere
fetches it, and waits for a holder. HEAD and mount of content without a reachable holder answer that it is missing, so
that a client that pushes uploads it again and thereby repairs it; HEAD first waits for members that may be restarting.
GET answers so if the content was deleted or collected during its wait for a holder.
"""

from starlette.requests import Request
from starlette.responses import Response

from crdt.change import Change
from registry.access.rights import Right
from registry.catalog.collection import is_linked
from registry.catalog.database import Transaction
from registry.catalog.queries import BlobRow, Queries, document_name
from registry.catalog.repository import delete_blob, link_blob, reassert_link
from registry.catalog.understanding import is_understood
from registry.cluster.transfer.blob_reader import WHOLE_BYTES, with_first_piece
from registry.cluster.transfer.range_reader import AHEAD_MIBS
from registry.cluster.transfer.transfer import SizeDiffers
from registry.errors import BlobUnknown, ContentUnreachable, NeedsUpgrade, RangeInvalid
from registry.http.access.admission import Permissions
from registry.http.oci.answers import StreamResponse, missing_blob
from registry.http.oci.conditions import (
    RangeResponse,
    blob_headers,
    content_headers,
    etag_of,
    evaluate_conditions,
    matches,
    whole_blob,
)
from registry.http.oci.context import BlobContext
from registry.http.oci.multipart import GAP_BYTES, Multipart, Pieces, assembled, runs
from registry.oci.names import Digest, Repository
from registry.oci.ranges import ByteRange, is_ascending


async def get_blob(context: BlobContext, request: Request, repository: Repository, digest: Digest) -> Response:
    """GET and HEAD of a blob."""
    row = await find_blob(context, repository, digest)
    if request.method == "HEAD":
        if matches(request.headers.get("if-none-match"), etag_of(digest)):
            return Response(status_code=304, headers=content_headers(digest))
        size = row.size if row.held else await context.locator.size_before_upload(digest)
        if size is None:
            raise BlobUnknown("no instance that has this blob can be reached", {"digest": digest})
        await _protect(context, repository, digest)
        return Response(headers=blob_headers(digest, size))
    try:
        try:
            return await _get(context, request, digest, row)
        except SizeDiffers as differs:  # the link states another size than the content has
            return await _get(context, request, digest, row._replace(size=differs.size))
        except RangeInvalid:  # by the size that the link states, unless the content is here
            size = None if row.held else await context.locator.size_anywhere(digest)
            if size is None or size == row.size:
                raise
            return await _get(context, request, digest, row._replace(size=size))
    except ContentUnreachable:
        if context.queries.blob(repository, digest) is None:  # deleted or collected while it was waited for
            raise BlobUnknown("there is no such blob in this repository any more", {"digest": digest}) from None
        raise


async def _get(context: BlobContext, request: Request, digest: Digest, row: BlobRow) -> Response:
    selected = evaluate_conditions(request.headers, digest, row.size, context.clock.entropy)
    if selected is None:
        return Response(status_code=304, headers=content_headers(digest))
    return await _content(context, digest, row, selected)


async def _protect(context: BlobContext, repository: Repository, digest: Digest) -> None:
    """Keep a blob that a client will rely on: a client that learns that a blob exists does not upload it. If this
    instance has agreed to release the blob, other members may be about to drop its link; the link is then re-asserted,
    so that a concurrent drop does not delete it. Raises BlobUnknown if the link is dropped already."""
    collector = context.garbage_collector
    collector.take_lease(digest)
    if not collector.release_pending(repository, digest):
        return

    def link(tx: Transaction) -> Change | None:
        return reassert_link(tx, context.documents, repository, digest, context.clock.now_ms())

    with context.decommission.writing():
        change = await context.database.write(link)
    if change is None:
        raise BlobUnknown("there is no such blob in this repository any more", {"digest": digest})
    collector.link_reasserted(repository, digest)
    await context.replication.await_acknowledgements(change)


async def find_blob(context: BlobContext, repository: Repository, digest: Digest) -> BlobRow:
    """Return a blob's link. Raises BlobUnknown when neither this instance nor a member that may know more has one."""
    row = context.queries.blob(repository, digest)
    if row is None:
        await context.replication.read_repair(repository)
        row = context.queries.blob(repository, digest)
    if row is None:
        raise missing_blob(digest)
    return row


async def _content(context: BlobContext, digest: Digest, row: BlobRow, selected: RangeResponse) -> Response:
    """Return a part of a blob's content, from this disk or from a holder."""
    context.evictor.touch(digest)
    if selected.multipart is not None:
        spans = [run.span for run in runs(selected.multipart.ranges, GAP_BYTES)]
        if await context.blob_reader.may_read_ranges(digest, row.size, row.writer, spans):
            return await _parts(context, digest, row, selected, selected.multipart, GAP_BYTES)
        if is_ascending(selected.multipart.ranges):
            return await _parts(context, digest, row, selected, selected.multipart, row.size)
        selected = whole_blob(digest, row.size)
    contents, part = context.blob_reader, ByteRange(selected.first, selected.length)
    if selected.length <= WHOLE_BYTES:
        body = b"".join([piece async for piece in contents.read(digest, row.size, row.writer, part)])
        return Response(body, selected.status, selected.headers)
    pieces = await contents.open(digest, row.size, row.writer, part, is_range=selected.status == 206)
    return StreamResponse(pieces, selected.status, selected.headers)


async def _parts(
    context: BlobContext, digest: Digest, row: BlobRow, selected: RangeResponse, multipart: Multipart, gap_bytes: int
) -> Response:
    """Several parts of a blob's content. `gap_bytes` is the most that is read and dropped between two of them: all of
    it where each read would fetch the whole content from its holder."""
    spans = [run.span for run in runs(multipart.ranges, gap_bytes)]
    following = {span: spans[number : number + AHEAD_MIBS] for number, span in enumerate(spans, 1)}

    def read(span: ByteRange) -> Pieces:
        return context.blob_reader.read(digest, row.size, row.writer, span, following[span])

    pieces = assembled(multipart, gap_bytes, read)
    if row.held and selected.length <= WHOLE_BYTES:
        return Response(b"".join([piece async for piece in pieces]), selected.status, selected.headers)
    return StreamResponse(await with_first_piece(pieces), selected.status, selected.headers)


async def mount_blob(
    context: BlobContext,
    repository: Repository,
    digest: Digest,
    source: Repository | None,
    permissions: Permissions | None,
) -> Change | None:
    """Link a blob that another repository has. Return None when that is impossible and the client has to upload it.
    Where no source is given, only repositories count that the client may pull from by its permissions; all, where
    they are None."""
    queries, database = context.queries, context.database
    if source is not None and not is_understood(database, document_name(source)):
        return None

    def find() -> BlobRow | None:
        if source is not None:
            return queries.blob(source, digest)
        if permissions is not None:
            return _pullable_link(queries, digest, permissions)
        return queries.blob_in_any_repository(digest)

    row = find()
    if row is None and source is not None:
        try:
            await context.replication.read_repair(source)
        except NeedsUpgrade:
            return None
        row = find()
    if row is None:
        return None
    size = row.size if row.held else await context.locator.size_within_miss_bound(digest)
    if size is None:
        return None
    now = context.clock.now_ms()

    def link(tx: Transaction) -> Change | None:
        if not is_linked(tx, digest):
            return None  # it was released while holders were asked
        return link_blob(tx, context.documents, repository, digest, size, now)

    change = await context.database.write(link)
    if change is not None:
        await context.replication.await_acknowledgements(change)
    return change


def _pullable_link(queries: Queries, digest: Digest, permissions: Permissions) -> BlobRow | None:
    """Return the link of a blob in a repository that the client's token names and that it may pull from. These are
    looked up whether they link the blob or not, so that the time tells nothing about others; without a token, nothing
    is looked up."""
    named = map(Repository, permissions.named_repositories())
    links = (queries.blob(source, digest) for source in named if permissions.may(source, Right.PULL))
    return next((link for link in links if link is not None), None)


async def delete(context: BlobContext, request: Request, repository: Repository, digest: Digest) -> Response:
    """DELETE of a blob: it can no longer be read in this repository. Content is collected elsewhere."""
    await context.replication.sync_before_delete(repository)

    def unlink(tx: Transaction) -> Change:
        return delete_blob(tx, context.documents, repository, digest)

    await context.replication.await_acknowledgements(await context.database.write(unlink))
    return Response(status_code=202)

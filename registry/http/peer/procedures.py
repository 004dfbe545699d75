"""The procedures that members can call, one for each type of request in `registry.cluster.rpc.messages`.

A procedure answers from committed state and this disk alone, so that requests cannot go round in circles. `handlers`
has authenticated the member before it calls a procedure."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec
from starlette.responses import Response

from crdt.errors import DocumentBroken, Malformed
from crdt.revisions import decode_revisions, encode_revisions
from crdt.vector import decode_vector, encode_vector
from registry.access import facts as access
from registry.catalog.access import RightsBehind
from registry.catalog.documents import MissingDependencies
from registry.catalog.incoming import Incoming, decode_aside, note_writers, store_missing_body
from registry.cluster.replication.direct_push import take_pushed
from registry.cluster.rpc import messages as m
from registry.cluster.rpc.sessions import Session
from registry.http.admin.tag_locations import MAX_PARTS, local_answer
from registry.http.peer.context import ContentContext, DocumentContext, PeerContext
from registry.oci.names import parse_digest
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.units import KIB, MIB

log = EventLog("concord.peers")

C = TypeVar("C")
T = TypeVar("T")

MAX_DIFFS_BYTES = 16 * MIB
DECODED_A_STEP = 16
MAX_BODIES_BYTES = 256 * KIB  # so that a slow line transfers some


class RequestRefused(Exception):
    """A request that is not from a member, or is malformed."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


class AuthenticatedRequest(NamedTuple):
    """A request of a member whose session, MAC and sequence number were checked."""

    session: Session
    sequence: int
    parameters: str
    """The parameters of a request whose body is streamed; empty otherwise."""
    body: bytes | None
    """None for a streamed one, which has not been read."""


Handler = Callable[[PeerContext, AuthenticatedRequest], Awaitable[Response]]


def _handler(
    request: type[T],
    respond: Callable[[C, AuthenticatedRequest, T], Awaitable[object]],
    part: Callable[[PeerContext], C],
) -> Handler:
    """Return the handler of a procedure: it decodes the request, passes the part of the context on, and encodes the
    response."""

    async def handle(context: PeerContext, authenticated: AuthenticatedRequest) -> Response:
        decoded = msgspec.msgpack.decode(authenticated.body or b"", type=request)
        return Response(msgspec.msgpack.encode(await respond(part(context), authenticated, decoded)))

    return handle


def _about_documents(
    request: type[T], respond: Callable[[DocumentContext, AuthenticatedRequest, T], Awaitable[object]]
) -> Handler:
    return _handler(request, respond, attrgetter("documents"))


def _about_content(
    request: type[T], respond: Callable[[ContentContext, AuthenticatedRequest, T], Awaitable[object]]
) -> Handler:
    return _handler(request, respond, attrgetter("content"))


async def _handshake(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.Handshake
) -> m.Handshake:
    if request.instance != authenticated.session.client:
        raise Malformed("a handshake in another instance's name")
    context.discovery.on_handshake(request)
    return context.discovery.make_handshake(context.members.get(request.instance))


async def _changes(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.ChangesRequest
) -> m.ChangesResponse:
    return m.ChangesResponse(*context.replica.changes(request.since))


async def _summaries(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.SummariesRequest
) -> m.SummariesResponse:
    return m.SummariesResponse.of(context.replica.summaries(request.read()))


async def _names(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.NamesRequest
) -> m.NamesResponse:
    return m.NamesResponse(context.replica.names(request.keys))


async def _fingerprints(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.FingerprintsRequest
) -> m.FingerprintsResponse:
    replica = context.replica
    return m.FingerprintsResponse([replica.state(name).fingerprint() for name in request.names])


async def _diffs(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.DiffsRequest
) -> m.DiffsResponse:
    """Return the diffs that the caller lacks. A diff that would make the answer too long is left for another request; a
    diff that is too long on its own is sent all the same, since there is no other way to get it."""
    diffs, size = [], 0
    for name, vector in request.documents:
        theirs = decode_vector(vector)
        ours = context.replica.state(name)
        if size > MAX_DIFFS_BYTES or all(theirs.get(writer, 0) >= clock for writer, clock in ours.vector.items()):
            diffs.append(m.DiffResponse.of(ours, b""))
            continue
        try:
            state, update = context.replica.state_and_diff(name, theirs)
        except DocumentBroken as error:
            log.error(
                LogEvent.DOCUMENT_READ_FAILED, "%(document)s cannot be read: %(error)s", document=name, error=error
            )
            raise RequestRefused(500, "document broken") from None
        if diffs and size + len(update) > MAX_DIFFS_BYTES:
            update = b""
        size += len(update)
        diffs.append(m.DiffResponse.of(state, update))
    names = [name for name, _ in request.documents]
    reached = encode_revisions(context.rights.reached)
    return m.DiffsResponse(diffs, context.queries.writers_of(names), reached)


async def _updates(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.UpdatesRequest
) -> m.UpdatesResponse:
    """Apply updates that another instance finds missing here. Each update stands for itself. Raises RequestRefused
    where its facts of access control are not here yet: these are asked for first."""
    await context.database.write(lambda tx: note_writers(tx, request.writers))
    early = []
    for number, (_, update) in enumerate(request.documents, 1):
        await decode_aside(update)  # nothing is applied where any is malformed
        if number % DECODED_A_STEP == 0:
            await asyncio.sleep(0)
    revisions = decode_revisions(request.revisions)
    for name, update in sorted(request.documents, key=lambda named: named[0] != access.DOCUMENT):  # rights come first
        incoming = Incoming(name, update, await decode_aside(update), {}, revisions=revisions)
        try:
            applied = await context.catalog.take_in(incoming)
            context.advances.announce(name, applied.vector)
        except MissingDependencies:
            early.append(name)
        except RightsBehind:
            context.diff_requests.request_diff(authenticated.session.client, access.DOCUMENT)
            raise RequestRefused(409, "ahead of rights") from None
    for body in request.bodies:
        await context.database.write_in_steps(partial(store_missing_body, body=body))
    return m.UpdatesResponse(early)


async def _facts(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.FactsRequest
) -> m.FactsResponse:
    state, facts = context.catalog.facts(request.name)
    return m.FactsResponse(encode_vector(state.vector), state.digest, facts)


async def _locate(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.LocateRequest
) -> m.LocateResponse:
    digest = parse_digest(request.digest)
    if request.retain:
        context.evictor.cancel_eviction(digest)
    if request.quarantined:
        return m.LocateResponse(context.blob_reader.quarantined_size(digest))
    size = context.store.held_size(digest)
    if size is None:
        body = context.queries.body(digest)
        size = len(body) if body is not None else None
    return m.LocateResponse(size, not context.decommission.under_way)


async def _chunk_digests(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.ChunkDigestsRequest
) -> m.ChunkDigestsResponse:
    row = context.store.row(parse_digest(request.digest))
    return m.ChunkDigestsResponse(None) if row is None else m.ChunkDigestsResponse(row.size, row.chunk_digests)


async def _bodies(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.BodiesRequest
) -> m.BodiesResponse:
    digests = [parse_digest(digest) for digest in request.digests]
    return m.BodiesResponse([digest for digest in digests if context.queries.has_body(digest)])


async def _manifests(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.ManifestsRequest
) -> m.ManifestsResponse:
    bodies, size = list[bytes](), 0
    for digest in map(parse_digest, request.digests):
        body = context.queries.body(digest)
        if body is None or await context.bodies.checked(digest, body) is None:
            continue
        size += len(body)
        if bodies and size > MAX_BODIES_BYTES:
            break
        bodies.append(body)
    return m.ManifestsResponse(bodies)


async def _replicate_manifest(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.ReplicateManifestRequest
) -> m.ReplicateManifestResponse:
    return await context.write_concern.replicate_manifest(request, context.members.get(authenticated.session.client))


async def _references(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.ReferenceRequest
) -> m.ReferenceResponse:
    return await context.garbage_collector.answer_references(context.members.get(authenticated.session.client), request)


async def _release(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.ReleaseRequest
) -> m.ReleaseResponse:
    return m.ReleaseResponse(list(await context.garbage_collector.release(request.read())))


async def _replicate_blob(
    context: ContentContext, authenticated: AuthenticatedRequest, request: m.ReplicateBlobRequest
) -> m.ReplicateBlobResponse:
    return await context.write_concern.replicate_blob(
        parse_digest(request.digest), request.size, authenticated.session.client
    )


async def _reach(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.ReachRequest
) -> m.ReachResponse:
    return await context.reachability.attempt(authenticated.session.client, request)


async def _replication(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.ReplicationRequest
) -> m.ReplicationResponse:
    if len(request.manifests) + len(request.blobs) > MAX_PARTS:
        raise Malformed(f"too many digests in one request: expected at most {MAX_PARTS}")
    return local_answer(context.queries, context.database, request)


async def _lease(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.LeaseRequest
) -> m.LeaseResponse:
    return context.site_lease.grant(authenticated.session.client, request)


async def _frames(
    context: DocumentContext, authenticated: AuthenticatedRequest, request: m.FramesRequest
) -> m.CommitAcknowledgement:
    return await take_pushed(context.gossip, context.members, authenticated.session.client, request.frames)


PROCEDURES: dict[str, Handler] = {
    "/handshake": _about_documents(m.Handshake, _handshake),
    "/lease": _about_documents(m.LeaseRequest, _lease),
    "/frames": _about_documents(m.FramesRequest, _frames),
    "/changes": _about_documents(m.ChangesRequest, _changes),
    "/summaries": _about_documents(m.SummariesRequest, _summaries),
    "/names": _about_documents(m.NamesRequest, _names),
    "/fingerprints": _about_documents(m.FingerprintsRequest, _fingerprints),
    "/diffs": _about_documents(m.DiffsRequest, _diffs),
    "/updates": _about_documents(m.UpdatesRequest, _updates),
    "/facts": _about_documents(m.FactsRequest, _facts),
    "/locate": _about_content(m.LocateRequest, _locate),
    "/chunk-digests": _about_content(m.ChunkDigestsRequest, _chunk_digests),
    "/bodies": _about_content(m.BodiesRequest, _bodies),
    "/manifests": _about_content(m.ManifestsRequest, _manifests),
    "/replicate-manifest": _about_content(m.ReplicateManifestRequest, _replicate_manifest),
    "/replicate-blob": _about_content(m.ReplicateBlobRequest, _replicate_blob),
    "/references": _about_content(m.ReferenceRequest, _references),
    "/release": _about_content(m.ReleaseRequest, _release),
    "/reach": _about_documents(m.ReachRequest, _reach),
    "/replication": _about_documents(m.ReplicationRequest, _replication),
}

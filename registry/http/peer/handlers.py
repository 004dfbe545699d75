"""The server side of requests between instances (`cluster.rpc.client` is the client side).

A request is accepted only in a session, with a MAC and a sequence number that was not used before
(`cluster.rpc.sessions`). It is answered from committed state and the local disk alone, so that requests cannot go round
in circles. A request that reached this instance at a shared address but is meant for another member is forwarded, once.
Site names do not matter for that: while a site is renamed by rolling restarts, both names stand behind its address.
"""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from crdt.errors import CrdtError, Malformed, Unauthentic
from registry import __version__
from registry.capabilities import ACCESS
from registry.catalog.queries import document_name
from registry.catalog.understanding import require_understood
from registry.cluster.membership.members import Member
from registry.cluster.rpc import messages as m
from registry.cluster.rpc.client import PREFIX
from registry.cluster.rpc.sessions import (
    CERTIFICATE_REFUSED,
    KEY_REFUSED,
    NONCE_SIZE,
    REFUSED,
    STREAMED,
    VERSION_REFUSED,
    hash_of,
    is_mac,
    new_token,
    read_token,
    sign_answer,
    sign_opened,
    sign_opening,
    sign_request,
)
from registry.cluster.rpc.upload_tokens import open_upload_id
from registry.errors import BlobUploadUnknown, DigestInvalid, DiskBudgetUsed, OciError, StorageFailed, Unsupported
from registry.http.oci.answers import StreamResponse, error_response
from registry.http.oci.uploads import UploadRequest, handle_upload_request
from registry.http.peer.context import AccessContext, ContentContext, PeerContext
from registry.http.peer.procedures import PROCEDURES, AuthenticatedRequest, RequestRefused
from registry.http.peer.relayed_uploads import upload_response
from registry.http.wire.client_certificate import has_certificate
from registry.http.wire.request import body_stream, number, small_body
from registry.oci.names import Digest, parse_digest, parse_repository
from registry.oci.ranges import ByteRange, parse_single_range
from registry.ports import PeerResponse, PeerUnreachable
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent
from registry.telemetry.request_ids import HEADER, forwarded_headers
from registry.units import GIB

log = EventLog("concord.peers")

T = TypeVar("T")

MAX_REQUEST_BYTES = GIB  # a document of millions of facts comes in one piece
STREAMED_PATHS = ("/upload",)
FORWARDED = "concord-forwarded"
FORWARD_TIMEOUT_S = 30.0
HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "date", "server", "keep-alive", HEADER.lower()})


async def answer(context: PeerContext, request: Request) -> Response:
    """Answer one request of another instance. What is refused changes nothing and is counted by its reason.

    Every answer to an authentic request is signed, but for content, which is proved by its digest.
    """
    access, path = context.access, request.scope["path"].removeprefix(PREFIX)
    if access.requires_certificate and not has_certificate(request.scope):
        return _refusal(access, RequestRefused(403, "no certificate", {REFUSED: CERTIFICATE_REFUSED}))
    try:
        meant = access.members.get(request.headers.get("concord-for", ""))
        if meant is not None and FORWARDED not in request.headers:
            _check_path(path)
            return await _forward(access, request, meant)
        if path == "/session":
            return await _open_session(access, request)
        authenticated = await authenticate(access, request, path, MAX_REQUEST_BYTES)
    except (RequestRefused, OciError, Malformed, Unauthentic, msgspec.DecodeError, ValueError) as error:
        return _refusal(access, error)
    access.requests.answered += 1
    log.debug(LogEvent.PEER_REQUEST_RECEIVED, "%(peer)s asks %(path)s", peer=authenticated.session.client, path=path)
    try:
        response = await _respond(context, request, path, authenticated)
    except (RequestRefused, OciError, CrdtError, msgspec.DecodeError, ValueError) as error:
        response = _refusal(access, error)
    if not isinstance(response, StreamResponse):
        mac = sign_answer(authenticated.session, authenticated.sequence, response.status_code, bytes(response.body))
        response.headers["Concord-MAC"] = mac
    return response


def _refusal(context: AccessContext, error: Exception) -> Response:
    if isinstance(error, StorageFailed | DiskBudgetUsed):
        return Response(error.message, error.status)
    refused = error if isinstance(error, RequestRefused) else RequestRefused(400, "malformed")
    if isinstance(error, Unauthentic):
        refused = RequestRefused(401, "unauthentic")
    context.requests.refused[refused.reason] += 1
    return Response(f"{refused.reason}: {error}", refused.status, refused.headers)


async def _respond(context: PeerContext, request: Request, path: str, authenticated: AuthenticatedRequest) -> Response:
    if path.startswith("/content/"):
        return await _content(context.content, request, parse_digest(path.removeprefix("/content/")))
    if path.startswith("/quarantined/"):
        return await _quarantined_copy(context.content, request, parse_digest(path.removeprefix("/quarantined/")))
    if path in STREAMED_PATHS:
        return await _upload(context, request, authenticated)
    procedure = PROCEDURES.get(path)
    if procedure is None:
        raise RequestRefused(404, "unknown question")
    return await procedure(context, authenticated)


def _check_path(path: str) -> None:
    """Raise RequestRefused for an unknown path: the client has proved nothing yet, and a forwarded request must not
    lead elsewhere."""
    kind, _, rest = path[1:].partition("/")
    if kind in ("content", "quarantined"):
        parse_digest(rest)
    elif path != "/session" and path not in STREAMED_PATHS and path not in PROCEDURES:
        raise RequestRefused(404, "unknown question")


async def _forward(context: AccessContext, request: Request, meant: Member) -> Response:
    """Forward a request to the member it is meant for. The sender and that member check the request, the answer and
    their MACs."""
    headers = [(name, value) for name, value in request.headers.items() if name.startswith(("concord-", "range"))]
    headers += [(FORWARDED, "1"), *forwarded_headers()]
    url = meant.beat.advertise + request.scope["path"]
    streamed = request.headers.get("concord-body") == STREAMED
    exchange = context.transport.request(request.method, url, headers, body_stream(request))
    try:
        async with asyncio.timeout(None if streamed else FORWARD_TIMEOUT_S):
            response = await exchange.__aenter__()
    except (PeerUnreachable, TimeoutError):
        return Response("the instance does not answer", 502)
    kept = {name: value for name, value in response.headers.items() if name not in HOP_BY_HOP}
    return StreamResponse(_relayed(exchange, response), response.status, kept)


async def _relayed(exchange: AbstractAsyncContextManager[PeerResponse], response: PeerResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.chunks():
            yield chunk
    finally:
        await exchange.__aexit__(None, None, None)


async def _open_session(context: AccessContext, request: Request) -> Response:
    body = await small_body(request, 4096, Unsupported("the request body is too long", 413))
    cluster = request.headers.get("concord-cluster", "")
    mac = request.headers.get("concord-mac")
    for key in context.keys:
        if key.cluster == cluster and is_mac(mac, sign_opening(key, body)):
            opening = msgspec.msgpack.decode(body, type=m.SessionRequest)
            if ACCESS not in opening.capabilities and context.rights.is_enforced:
                raise RequestRefused(403, "cannot enforce", {REFUSED: VERSION_REFUSED})
            nonce = context.clock.entropy(NONCE_SIZE)
            own, now_ms = context.catalog.instance_id, context.clock.now_ms()
            incarnation = context.incarnation.number
            token = new_token(key, opening.instance, own, incarnation, opening.nonce, nonce, now_ms)
            capabilities = list(context.capabilities)
            answer = msgspec.msgpack.encode(m.SessionResponse(own, token, __version__, capabilities))
            return Response(answer, headers={"Concord-MAC": sign_opened(key, opening.nonce, answer)})
    context.acceptance.presented(request.client.host if request.client else "")
    raise RequestRefused(403, "unauthentic", {REFUSED: KEY_REFUSED})


async def authenticate(context: AccessContext, request: Request, path: str, limit_bytes: int) -> AuthenticatedRequest:
    """Check session, MAC and number, and return the request with its body. Raises Refused, Malformed, Unauthentic, and
    Unsupported for a body above the limit."""
    headers = request.headers
    session = read_token(headers.get("concord-session", ""), context.keys)
    sequence = number(headers.get("concord-sequence", ""))
    own = context.catalog.instance_id, context.incarnation.number
    if (session.server, session.incarnation) != own or session.expires_ms < context.clock.now_ms() or sequence is None:
        raise RequestRefused(401, "expired")
    member = context.members.get(session.client)
    if member is not None and ACCESS not in member.beat.capabilities and context.rights.is_enforced:
        raise RequestRefused(401, "cannot enforce")  # a session from before access control was enforced
    parameters, body_hash = headers.get("concord-parameters", ""), headers.get("concord-body", "")
    signed = sign_request(session, request.method, request.scope["path"], sequence, parameters, body_hash)
    if not is_mac(headers.get("concord-mac"), signed) or (body_hash == STREAMED) != (path in STREAMED_PATHS):
        raise RequestRefused(403, "unauthentic")
    if not context.seen_requests.accept(session, sequence):
        raise RequestRefused(403, "replayed")
    if body_hash == STREAMED:
        return AuthenticatedRequest(session, sequence, parameters, None)
    body = await small_body(request, limit_bytes, Unsupported("the request body is too long", 413))
    if hash_of(body) != body_hash:
        raise RequestRefused(403, "unauthentic")
    return AuthenticatedRequest(session, sequence, parameters, body)


async def _content(context: ContentContext, request: Request, digest: Digest) -> Response:
    """Content from this disk only: a blob's file or a manifest's body, from an offset on."""
    body = context.queries.body(digest)
    if body is not None and await context.bodies.checked(digest, body) is not None:
        return Response(body, headers={"Content-Type": "application/octet-stream"})
    size = context.store.held_size(digest)
    if size is None:
        return Response("not here", 404)
    part = parse_single_range(request.headers.get("range"), size) if size else None
    first, length = part if part else (0, size)
    pieces = await context.blob_reader.open_held(digest, ByteRange(first, length))
    if pieces is None:
        return Response("not here any more", 404)
    headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
    return StreamResponse(pieces, 206 if part else 200, headers)


async def _quarantined_copy(context: ContentContext, request: Request, digest: Digest) -> Response:
    """Return a range of a quarantined copy if the checksums of that range match."""
    size = context.blob_reader.quarantined_size(digest)
    part = parse_single_range(request.headers.get("range"), size) if size else None
    pieces = await context.blob_reader.open_quarantined(digest, ByteRange(*part)) if part else None
    if part is None or pieces is None:
        return Response("not here", 404)
    headers = {"Content-Length": str(part.length), "Content-Type": "application/octet-stream"}
    return StreamResponse(pieces, 206, headers)


async def _upload(context: PeerContext, request: Request, authenticated: AuthenticatedRequest) -> Response:
    """Handle a request for an upload of this instance that arrived at another instance."""
    uploads = context.uploads
    forwarded = msgspec.msgpack.decode(_unpacked(authenticated.parameters), type=m.ForwardedUploadRequest)
    try:
        repository = parse_repository(forwarded.repository)
        upload = open_upload_id(forwarded.upload, repository, uploads.keys(), forwarded.account)
        if upload.owner != uploads.instance():
            raise BlobUploadUnknown("this upload was begun at another instance")
        require_understood(context.database, document_name(repository))
        digest = parse_digest(forwarded.digest) if forwarded.digest is not None else None
        if forwarded.method == "PUT" and digest is None:
            raise DigestInvalid("the digest is missing")
        span = ByteRange(*forwarded.range) if forwarded.range else None
        body, network = body_stream(request), forwarded.network
        wanted = UploadRequest(forwarded.method, repository, upload, digest, span, body, network, forwarded.account)
        with context.decommission.writing(), context.refusals.noting(repository, forwarded.method):
            home = uploads.slot.home_of(upload.name)
            if home == uploads.slot.number:
                response = await handle_upload_request(uploads, wanted)
            else:
                response = await upload_response(uploads.relay, home, wanted, forwarded.upload)
    except OciError as error:
        response = error_response(error)
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(
        msgspec.msgpack.encode(m.ForwardedUploadResponse(response.status_code, headers, bytes(response.body)))
    )


def _unpacked(parameters: str) -> bytes:
    try:
        return b64decode(parameters, validate=True)
    except ValueError:
        raise Malformed("invalid concord-parameters header: expected base64") from None

"""Pushing blobs, at whichever instance a request arrives (OCI distribution specification, "Pushing blobs").

The instance that began an upload owns it: it keeps the bytes, and the upload's id names it. A request that arrives at
another instance is forwarded to the owner once, as a stream. If the owner does not answer, the instance that received
the request adopts an upload without bytes. For an upload with bytes it waits a moment for an owner that is restarting,
answers 503 while the owner may come back, and at last 404, on which clients begin again.

Within an instance of several processes, one process is the home of an upload (`storage.upload_homes`). It handles the
requests, and other processes relay them to it (`serving_slot`).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.cluster.membership.members import Member
from registry.cluster.rpc.client import SessionRefused
from registry.cluster.rpc.messages import ForwardedUploadRequest, ForwardedUploadResponse
from registry.cluster.rpc.upload_tokens import (
    RANDOM_SIZE,
    UploadId,
    new_upload_name,
    open_upload_id,
    owner_of,
    seal_upload_id,
)
from registry.errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    ChunkOutOfOrder,
    Ending,
    NameInvalid,
    OciError,
    UploadUnreachable,
)
from registry.event_loop.now import now_s
from registry.http.access.admission import account_of, may_pull, permissions_of, while_pushing
from registry.http.oci.answers import error_response
from registry.http.oci.blobs import mount_blob
from registry.http.oci.context import OwnUploadContext, UploadContext
from registry.http.oci.paths import Path
from registry.http.oci.repeatable import RepeatableBody
from registry.http.wire.request import CutOffByEnd, body_stream, content_range, number
from registry.oci.names import ALGORITHMS, Digest, Repository, parse_digest, parse_repository
from registry.oci.ranges import ByteRange
from registry.ports import PeerUnreachable
from registry.settings.trusted_proxies import client_network
from registry.storage.upload_homes import PRIMARY_SLOT
from registry.storage.uploads import ClientGone

OWNER_TIMEOUT_S = 30.0
OWNER_RESTART_WAIT_S = 6.0
RETRY_INTERVAL_S = 0.25

Method = Literal["PATCH", "PUT", "GET", "DELETE"]
METHODS = frozenset({"PATCH", "PUT", "GET", "HEAD", "DELETE"})
"""The methods of a request for an upload that has been begun."""


class UploadRequest(NamedTuple):
    """One request for an upload, independent of the connection it arrived on."""

    method: Method
    repository: Repository
    upload: UploadId
    digest: Digest | None
    span: ByteRange | None
    body: AsyncIterator[bytes]
    network: str = ""
    """The network of the client."""
    account: str = ""
    """The id of the client's account, to which the upload is bound; empty for an anonymous client."""


async def begin(context: UploadContext, request: Request, repository: Repository) -> Response:
    """POST: begin an upload, or push or mount a blob in one request."""
    query = request.query_params
    if "mount" in query:
        digest = parse_digest(query["mount"])
        if await _mount(context, request, repository, digest):
            return _created_response(repository, digest)
    return await begin_own(context.own, request, repository)


async def begin_own(context: OwnUploadContext, request: Request, repository: Repository) -> Response:
    """POST of a blob that is not mounted. This process becomes the upload's home."""
    query, account = request.query_params, account_of(request.scope)
    if "mount" not in query and query.get("digest-algorithm", "sha256") not in ALGORITHMS:
        raise BlobUploadInvalid(
            "unsupported digest-algorithm: expected one of the supported algorithms", {"supported": sorted(ALGORITHMS)}
        )
    if not context.drain.begins_uploads:
        raise Ending
    context.budget.check_room()
    context.uploads.check_disk(number(request.headers.get("content-length", "")) or 0)  # now: a balancer can go on
    context.uploads.check_number()
    upload = _new_upload(context)
    if "digest" in query and "mount" not in query:
        digest, network = parse_digest(query["digest"]), client_network(request.scope)
        body = while_pushing(request.scope, repository, body_stream(request))
        wanted = UploadRequest("PUT", repository, upload, digest, None, body, network, account)
        return await handle_upload_request(context, wanted)
    return Response(status_code=202, headers=_upload_headers(context, repository, account, upload.name, 0))


async def _mount(context: UploadContext, request: Request, repository: Repository, digest: Digest) -> bool:
    """Mount a blob, and return False where it has to be uploaded (OCI distribution specification, "Mounting a blob from
    another repository"). That includes a source with an invalid name: clients also send names of other registries,
    which have another grammar. It also includes a source that the client may not pull from, before any look-up."""
    source = request.query_params.get("from", "")
    if source and not may_pull(request.scope, source):
        return False
    try:
        repository_of_source = parse_repository(source) if source else None
    except NameInvalid:
        return False
    permissions = permissions_of(request.scope)
    return await mount_blob(context.blobs, repository, digest, repository_of_source, permissions) is not None


async def continue_upload(context: UploadContext, request: Request, repository: Repository, upload_id: str) -> Response:
    """PATCH, PUT, GET, HEAD and DELETE of an upload."""
    own, wanted = context.own, _parsed(context.own, request, repository, upload_id)
    upload, has_body = wanted.upload, wanted.method in ("PATCH", "PUT")
    if upload.owner == own.instance():
        return await handle_upload_request(own, wanted)
    owner = context.members.get(upload.owner)
    is_adoptable = not upload.has_bytes and (wanted.span is None or wanted.span.first == 0)
    if owner is not None and (owner.reachable or (upload.has_bytes and owner.may_be_restarting)):
        body = RepeatableBody(wanted.body)
        try:
            if has_body:
                await body.read_beginning()
            return await _forward(context, owner, wanted, body, upload_id)
        except ClientGone:
            raise BlobUploadInvalid("the body broke off", breaks_off=True) from None
        except PeerUnreachable:
            if not is_adoptable or not body.is_repeatable:
                raise _owner_error(owner) from None
            wanted = wanted._replace(body=body.pieces())
    if is_adoptable:
        return await handle_upload_request(own, wanted._replace(upload=_new_upload(own)))
    raise _owner_error(owner)


async def continue_own(context: OwnUploadContext, request: Request, repository: Repository, upload_id: str) -> Response:
    """PATCH, PUT, GET, HEAD and DELETE of an upload whose home this process is."""
    return await handle_upload_request(context, _parsed(context, request, repository, upload_id))


def _parsed(context: OwnUploadContext, request: Request, repository: Repository, upload_id: str) -> UploadRequest:
    account = account_of(request.scope)
    upload = open_upload_id(upload_id, repository, context.keys(), account)
    digest = parse_digest(request.query_params.get("digest", "")) if request.method == "PUT" else None
    span = content_range(request) if request.method in ("PATCH", "PUT") else None
    method = cast(Method, "GET" if request.method == "HEAD" else request.method)
    network = client_network(request.scope)
    body = while_pushing(request.scope, repository, body_stream(request))
    return UploadRequest(method, repository, upload, digest, span, body, network, account)


def serving_slot(context: OwnUploadContext, path: Path, method: str, query: bytes) -> int:
    """Return the slot of the process that handles a request for an upload, by its path. The primary handles what needs
    other instances. Whether the id is valid is for that process to see."""
    slot = context.slot
    if path.resource == "uploads":
        return slot.number if method == "POST" and b"mount=" not in query else PRIMARY_SLOT
    if method not in METHODS:
        return PRIMARY_SLOT  # which refuses it
    try:
        upload = path.reference.partition(".")[0]
        return slot.home_of(upload) if owner_of(upload) == context.instance() else PRIMARY_SLOT
    except ValueError:
        return PRIMARY_SLOT


async def relayed(context: UploadContext, path: Path, scope: Scope, receive: Receive, send: Send) -> bool:
    """Relay a request for an upload to the process that is its home. Return False where this process is."""
    own = context.own
    slot = serving_slot(own, path, scope["method"], scope["query_string"])
    if slot == own.slot.number:
        return False
    try:
        await own.relay.relay(slot, scope, receive, send)
    except OciError as error:  # no answer has begun
        await error_response(error)(scope, receive, send)
    return True


async def handle_upload_request(context: OwnUploadContext, wanted: UploadRequest) -> Response:
    """Handle a request for an upload that this instance owns."""
    uploads, name = context.uploads, wanted.upload.name
    if wanted.upload.has_bytes and not uploads.has_bytes(name):
        raise BlobUploadUnknown("this upload was finished or cancelled, or has expired")
    try:
        if wanted.method == "PATCH":
            size = await uploads.append(name, wanted.repository, wanted.body, wanted.span, wanted.network)
            return _upload_response(context, wanted, size, 202)
        if wanted.method == "PUT":
            assert wanted.digest is not None, "a PUT has a digest"
            acknowledged = await uploads.finish(
                name, wanted.repository, wanted.digest, wanted.body, wanted.span, wanted.network
            )
            await acknowledged()
            return _created_response(wanted.repository, wanted.digest)
        if wanted.method == "DELETE":
            await uploads.cancel(name, wanted.repository)
            return Response(status_code=204)
        return _upload_response(context, wanted, uploads.size(name, wanted.repository), 204)
    except ChunkOutOfOrder as error:
        size = uploads.size(name, wanted.repository)
        error.headers |= _upload_headers(context, wanted.repository, wanted.account, name, size)
        raise
    except CutOffByEnd:
        raise Ending from None
    except ClientGone:
        # The client has closed the connection: only a load balancer in between can read this answer.
        raise BlobUploadInvalid("the body broke off; what arrived is kept", breaks_off=True) from None


async def _forward(
    context: UploadContext, owner: Member, wanted: UploadRequest, body: RepeatableBody, upload_id: str
) -> Response:
    """Forward a request to the owner, and return its answer. The body is streamed; the owner checks it against the
    digest. An owner that is restarting is waited for as long as nothing of the body was sent. Raises PeerUnreachable
    and ClientGone."""
    forwarded = ForwardedUploadRequest(
        wanted.method, wanted.repository, upload_id, wanted.digest, wanted.span, wanted.network, wanted.account
    )
    until = now_s() + OWNER_RESTART_WAIT_S
    while True:
        try:
            answer = await context.peers.ask_with_content(
                owner, "/upload", forwarded, body.pieces(), ForwardedUploadResponse, OWNER_TIMEOUT_S
            )
            return Response(answer.content, answer.status, answer.headers)
        except PeerUnreachable as error:
            # One that has restarted knows no session from before; the next request opens another.
            may_answer = isinstance(error, SessionRefused) or (wanted.upload.has_bytes and owner.may_be_restarting)
            if body.is_sent or not may_answer or now_s() > until:
                raise
        await asyncio.sleep(RETRY_INTERVAL_S)


def _owner_error(owner: Member | None) -> BlobUploadUnknown | UploadUnreachable:
    if owner is None or not (owner.live or owner.may_be_restarting):
        return BlobUploadUnknown("the instance that has this upload's bytes is gone; begin again")
    detail = {"instance": owner.instance, "name": owner.beat.name}
    return UploadUnreachable("the instance that has this upload's bytes does not answer", detail)


def _new_upload(context: OwnUploadContext) -> UploadId:
    own = context.instance()
    return UploadId(own, new_upload_name(own, context.slot.at_home(context.clock.entropy(RANDOM_SIZE))), False)


def _upload_headers(
    context: OwnUploadContext, repository: Repository, account: str, name: str, size: int
) -> dict[str, str]:
    upload_id = seal_upload_id(name, size > 0, repository, context.keys()[0], account)
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": name,
    }


def _upload_response(context: OwnUploadContext, wanted: UploadRequest, size: int, status: int) -> Response:
    headers = _upload_headers(context, wanted.repository, wanted.account, wanted.upload.name, size)
    return Response(status_code=status, headers=headers)


def _created_response(repository: Repository, digest: Digest) -> Response:
    headers = {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}
    return Response(status_code=201, headers=headers)

"""Pushing blobs, at whichever instance a request arrives (OCI distribution specification, "Pushing blobs").

An upload's bytes are kept by the instance that began it, which its id names. A request that arrives elsewhere is passed
on, once, as it streams. When the owner is gone an upload without bytes is adopted by whoever is asked next; one with
bytes is 503 while its owner may come back, then unknown, which makes clients begin again.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from registry.blobs.uploads import ClientGone, Span
from registry.cluster.members import Member
from registry.cluster.upload_ids import RANDOM_SIZE, UploadId, new_upload_name, open_upload_id, seal_upload_id
from registry.errors import BlobUploadInvalid, BlobUploadUnknown, ChunkOutOfOrder, UploadUnreachable
from registry.http.blobs import mount_blob
from registry.http.request import body_stream, content_range
from registry.instance import Instance
from registry.names import ALGORITHMS, Digest, Repository, parse_digest, parse_repository
from registry.seams import PeerUnreachable

OWNER_ANSWERS_S = 30.0
PASSED_ON = ("location", "range", "docker-content-digest", "docker-upload-uuid", "content-type", "retry-after")


class Step(NamedTuple):
    """One request of an upload, apart from how it came here."""

    method: str
    repository: Repository
    upload: UploadId
    digest: Digest | None
    span: Span | None
    body: AsyncIterator[bytes]


async def begin(instance: Instance, request: Request, repository: Repository) -> Response:
    """POST: begin an upload, or push or mount a blob in one request."""
    query = request.query_params
    if "mount" in query:
        digest = parse_digest(query["mount"])
        source = parse_repository(query["from"]) if query.get("from") else None
        if await mount_blob(instance, repository, digest, source) is not None:
            return _created(repository, digest)
    elif query.get("digest-algorithm", "sha256") not in ALGORITHMS:
        raise BlobUploadInvalid("this digest algorithm is not supported", {"supported": sorted(ALGORITHMS)})
    upload = _new_upload(instance)
    if "digest" in query and "mount" not in query:
        step = Step("PUT", repository, upload, parse_digest(query["digest"]), None, body_stream(request))
        return await carry_out(instance, step)
    return _under_way(instance, repository, upload.name, 0, 202)


async def continue_upload(instance: Instance, request: Request, repository: Repository, upload_id: str) -> Response:
    """PATCH, PUT, GET and DELETE of an upload."""
    upload = open_upload_id(upload_id, repository, instance.upload_keys)
    digest = parse_digest(request.query_params.get("digest", "")) if request.method == "PUT" else None
    has_body = request.method in ("PATCH", "PUT")
    span = content_range(request) if has_body else None
    step = Step(request.method, repository, upload, digest, span, body_stream(request))
    if upload.owner == instance.catalog.instance:
        if upload.has_bytes and not instance.uploads.has_bytes(upload.name):
            raise BlobUploadUnknown("this upload was finished or cancelled, or has expired")
        return await carry_out(instance, step)
    owner = instance.cluster.members.get(upload.owner)
    if owner is not None and owner.reachable:
        return await _pass_on(instance, owner, step, upload_id)
    if not upload.has_bytes and (span is None or span.first == 0):
        return await carry_out(instance, step._replace(upload=_new_upload(instance)))
    raise _gone(owner)


async def carry_out(instance: Instance, step: Step) -> Response:
    """Do what a request asks of an upload that this instance owns."""
    uploads, name = instance.uploads, step.upload.name
    try:
        if step.method == "PATCH":
            size = await uploads.append(name, step.repository, step.body, step.span)
            return _under_way(instance, step.repository, name, size, 202)
        if step.method == "PUT":
            assert step.digest is not None, "a PUT has a digest"
            change = await uploads.finish(name, step.repository, step.digest, step.body, step.span)
            await instance.cluster.settle(change)
            return _created(step.repository, step.digest)
        if step.method == "DELETE":
            await uploads.cancel(name, step.repository)
            return Response(status_code=204)
        return _under_way(instance, step.repository, name, uploads.size(name, step.repository), 204)
    except ChunkOutOfOrder as error:
        error.headers |= _position(instance, step.repository, name, uploads.size(name, step.repository))
        raise
    except ClientGone:
        # Nobody reads this answer, unless a balancer between us does.
        raise BlobUploadInvalid("the body broke off; what arrived is kept") from None


async def _pass_on(instance: Instance, owner: Member, step: Step, upload_id: str) -> Response:
    """Let the owner answer. Bytes stream through; the owner checks them against the digest."""
    headers = [("Concord-Method", step.method), ("Concord-Repository", step.repository), ("Concord-Upload", upload_id)]
    if step.digest is not None:
        headers.append(("Concord-Digest", step.digest))
    if step.span is not None:
        headers.append(("Concord-Span", f"{step.span.first} {step.span.length}"))
    body = step.body if step.method in ("PATCH", "PUT") else b""
    try:
        async with instance.cluster.peers.stream(
            owner, "POST", "/upload", headers, body, timeout_s=OWNER_ANSWERS_S
        ) as response:
            content = b"".join([chunk async for chunk in response.chunks()])
            passed = {name: response.headers[name] for name in PASSED_ON if name in response.headers}
            return Response(content, response.status, passed)
    except PeerUnreachable:
        raise _gone(owner) from None
    except ClientGone:
        raise BlobUploadInvalid("the body broke off; what arrived is kept") from None


def _gone(owner: Member | None) -> BlobUploadUnknown | UploadUnreachable:
    if owner is None or not owner.live:
        return BlobUploadUnknown("the instance that has this upload's bytes is gone; begin again")
    return UploadUnreachable("the instance that has this upload's bytes does not answer", {"instance": owner.instance})


def _new_upload(instance: Instance) -> UploadId:
    own = instance.catalog.instance
    return UploadId(own, new_upload_name(own, instance.clock.entropy(RANDOM_SIZE)), False)


def _position(instance: Instance, repository: Repository, name: str, size: int) -> dict[str, str]:
    upload_id = seal_upload_id(name, size > 0, repository, instance.upload_keys[0])
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{upload_id}",
        "Range": f"0-{max(size - 1, 0)}",
        "Docker-Upload-UUID": name,
    }


def _under_way(instance: Instance, repository: Repository, name: str, size: int, status: int) -> Response:
    return Response(status_code=status, headers=_position(instance, repository, name, size))


def _created(repository: Repository, digest: Digest) -> Response:
    headers = {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}
    return Response(status_code=201, headers=headers)

"""Conditional and range requests of content (RFC 9110, sections 13 and 14), and the headers of their responses."""

from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers

from registry.http.oci.multipart import BOUNDARY_SIZE, Multipart
from registry.oci.names import Digest
from registry.oci.ranges import parse_ranges


class RangeResponse(NamedTuple):
    """The bytes of a blob to send, with the status and headers of the response."""

    first: int
    length: int
    status: int
    headers: dict[str, str]
    multipart: Multipart | None = None
    """The parts, where there are several; `first` and `length` are then those of the answer's body."""


def evaluate_conditions(
    request: Headers, digest: Digest, size: int, entropy: Callable[[int], bytes]
) -> RangeResponse | None:
    """Return the response to a GET of a blob: all of it, or ranges; None if the client has it already. Raises
    RangeInvalid. `entropy` returns that many unpredictable bytes."""
    etag = etag_of(digest)
    if matches(request.get("if-none-match"), etag):
        return None
    ranges = parse_ranges(request.get("range"), size) if request.get("if-range") in (None, etag) else None
    if ranges is None:
        return whole_blob(digest, size)
    headers = blob_headers(digest, size)
    if len(ranges) > 1:
        multipart = Multipart(ranges, size, entropy(BOUNDARY_SIZE).hex())
        headers["Content-Type"] = f"multipart/byteranges; boundary={multipart.boundary}"
        headers["Content-Length"] = str(multipart.length())
        return RangeResponse(0, multipart.length(), 206, headers, multipart)
    (part,) = ranges
    headers["Content-Range"] = f"bytes {part.first}-{part.first + part.length - 1}/{size}"
    headers["Content-Length"] = str(part.length)
    return RangeResponse(part.first, part.length, 206, headers)


def whole_blob(digest: Digest, size: int) -> RangeResponse:
    """Return the response with the whole blob."""
    return RangeResponse(0, size, 200, blob_headers(digest, size))


def etag_of(digest: Digest) -> str:
    """Return the entity tag of content. Content never changes, so its digest is a strong validator."""
    return f'"{digest}"'


def matches(header: str | None, etag: str) -> bool:
    """Return whether If-None-Match (RFC 9110, section 13.1.2) is `*` or lists this entity tag, weak or strong."""
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in header.split(","))


def content_headers(digest: Digest) -> dict[str, str]:
    """Return the headers of every response with content."""
    return {"Docker-Content-Digest": digest, "ETag": etag_of(digest)}


def blob_headers(digest: Digest, size: int) -> dict[str, str]:
    """The headers of a whole blob."""
    more = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", "Content-Length": str(size)}
    return content_headers(digest) | more

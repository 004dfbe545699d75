"""Every answer is one that the specification allows, and content always matches its digest.

503 is allowed while a disk fails or holders of content cannot be reached; in calm weather it is not.
"""

import hashlib
from collections.abc import Mapping, Sequence

from simulations.checkers import Violation
from simulations.history import Operation
from simulations.lost_content import LostContent

ALLOWED = {
    "begin upload": {202},
    "chunk": {202, 404, 416},
    "upload": {201, 404, 416},
    "upload status": {204, 404},
    "slow chunk": {202, 404, 416},
    "slow status": {204, 404},
    "slow upload": {201},
    "chunk out of place": {416, 404},
    "chunk broken off": {202, 400, 404, 408},
    "chunk of what has ended": {404},
    "upload of another digest": {400, 404},
    "altered id": {404},
    "cancel": {204, 404},
    "mount": {201, 202},
    "push": {201, 404},
    "push by digest": {201, 404},
    "delete tag": {202, 404},
    "delete manifest": {202, 404},
    "delete blob": {202, 404},
    "pull manifest": {200, 404},
    "pull blob": {200, 404},
    "pull range": {200, 206, 404},
    "head blob": {200, 404},
    "tags": {200, 404},
    "catalog": {200},
    "collect": {200},
    "referrers": {200},
    "access": {200, 400, 404, 409},
}
REFUSALS = frozenset({401, 403, 429})
"""Statuses of requests whose credential does not give the right, or of which too many were tried. `admissions` judges
them."""


OF_AN_UPLOAD = {
    "chunk": {202},
    "upload": {201},
    "upload status": {204},
    "slow status": {204},
    "slow chunk": {202, 416},
    "cancel": {204},
    "chunk out of place": {416},
    "upload of another digest": {400},
}
"""Statuses that are allowed as long as an upload's owner can be asked."""


def check_upload(operation: Operation, lost: LostContent) -> None:
    """While requests get through: the owner of an upload is there to be asked, and knows it."""
    allowed = OF_AN_UPLOAD.get(operation.kind)
    is_judged = operation.status in REFUSALS and not operation.is_steady
    if allowed is not None and operation.status not in allowed and not lost.doubled and not is_judged:
        raise Violation(f"{operation}, while its owner can be asked")


def check_status(operation: Operation, calm: bool, lost: LostContent) -> None:
    """By the kind of request, as in the table above. A credential that changes concern may be refused at any time, and
    any other one where the facts are not there yet. Content that may be nowhere cannot be had; where a directory was
    copied, an upload's parts may be at two instances under one name."""
    allowed = set(ALLOWED[operation.kind])
    if not calm or lost.concerns(operation):
        allowed.add(503)
    if not calm or not operation.is_steady:
        allowed |= REFUSALS
    if lost.doubled and operation.kind == "upload":
        allowed.add(400)
    if operation.status not in allowed:
        raise Violation(f"an answer that makes no sense: {operation}")


def check_body(digest: str, body: bytes) -> None:
    """Content that was answered whole has the digest it was asked for by."""
    algorithm, _, encoded = digest.partition(":")
    if hashlib.new(algorithm, body).hexdigest() != encoded:
        raise Violation(f"wrong content was served for {digest}")


def check_ranges(content: bytes, ranges: Sequence[tuple[int, int]], headers: Mapping[str, str], body: bytes) -> None:
    """Ranges that were asked for, by their first and last bytes, hold the bytes of the content (RFC 9110, 14.6)."""
    bounds = [f"bytes {first}-{last}/{len(content)}" for first, last in ranges]
    if len(ranges) == 1:
        ((first, last),) = ranges
        expected = content[first : last + 1]
        if headers.get("content-range") != bounds[0]:
            raise Violation(f"Content-Range is {headers.get('content-range')}")
    else:
        boundary = headers["content-type"].partition("boundary=")[2]
        head = f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: {{}}\r\n\r\n"
        parts = zip(bounds, ranges, strict=True)
        expected = b"".join(head.format(bound).encode() + content[first : last + 1] for bound, (first, last) in parts)
        expected += f"\r\n--{boundary}--\r\n".encode()
    if body != expected:
        raise Violation(f"wrong bytes: {len(body)} of {len(expected)}")

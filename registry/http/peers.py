"""What other instances ask: the answering side of `cluster.peers`.

Requests are accepted only in a session, with a MAC and a number not seen before (see `cluster.sessions`), and are
answered from committed state and the local disk alone, so that questions cannot go round in circles. A request that
reached this instance at its site's shared address but is meant for another one of the site is passed on, once.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from crdt.delta import decode_delta
from crdt.errors import CrdtError, DocumentBroken, Malformed, Unauthentic
from crdt.vector import decode_vector, encode_vector
from registry.blobs.uploads import Span
from registry.catalog.documents import Early, WriterReused
from registry.catalog.incoming import keep_wanted_body, note_writers
from registry.cluster import messages as m
from registry.cluster.members import Member
from registry.cluster.peers import PREFIX
from registry.cluster.sessions import (
    Session,
    new_token,
    read_token,
    sign_answer,
    sign_opened,
    sign_opening,
    sign_request,
)
from registry.cluster.sync import apply_update
from registry.cluster.upload_ids import open_upload_id
from registry.errors import BlobUploadUnknown, OciError, Unsupported
from registry.http.answers import StreamResponse, error_response
from registry.http.blobs import open_held
from registry.http.ranges import parse_range
from registry.http.request import body_stream, small_body
from registry.http.uploads import Step, carry_out
from registry.instance import Instance
from registry.names import Digest, parse_digest, parse_repository
from registry.seams import PeerResponse, PeerUnreachable

T = TypeVar("T")

MAX_QUESTION_BYTES = 64 * 1024 * 1024
MAX_DIFFS_BYTES = 16 * 1024 * 1024
STREAMED_PATHS = ("/upload",)
PASSED_ON = "concord-passed-on"
HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "date", "server", "keep-alive"})


class Refused(Exception):
    """A request that is not from a member, or makes no sense."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Asked(NamedTuple):
    """An authentic request."""

    session: Session
    sequence: int
    body: bytes | None
    """None for a streamed one, which has not been read."""


async def answer(instance: Instance, request: Request) -> Response:
    """Answer one request of another instance. What is refused changes nothing and is counted by its reason."""
    try:
        path = request.scope["path"].removeprefix(PREFIX)
        if path == "/session":
            return await _open_session(instance, request)
        asked = await _authenticate(instance, request, path)
        instance.answered_peers += 1
        meant = instance.cluster.members.get(request.headers.get("concord-for", ""))
        if meant is not None and meant.beat.site == instance.config.site and PASSED_ON not in request.headers:
            return await _pass_on(instance, request, meant, asked)
        if path.startswith("/content/"):
            return await _content(instance, request, parse_digest(path.removeprefix("/content/")))
        if path == "/upload":
            return await _upload(instance, request)
        question = QUESTIONS.get(path)
        if question is None:
            raise Refused(404, "unknown question")
        return await question(instance, asked)
    except Refused as refused:
        instance.refused_peers[refused.reason] += 1
        return Response(refused.reason, refused.status)
    except (Malformed, msgspec.DecodeError) as error:
        instance.refused_peers["malformed"] += 1
        return Response(f"malformed: {error}", 400)
    except Unauthentic:
        instance.refused_peers["unauthentic"] += 1
        return Response("unauthentic", 401)


async def _pass_on(instance: Instance, request: Request, meant: Member, asked: Asked) -> Response:
    """Let the instance answer that is meant. Its answer, MAC and all, is the asker's to check."""
    headers = [(name, value) for name, value in request.headers.items() if name.startswith(("concord-", "range"))]
    headers.append((PASSED_ON, "1"))
    url = meant.beat.advertise + request.scope["path"]
    body = asked.body if asked.body is not None else body_stream(request)
    exchange = instance.transport.request(request.method, url, headers, body)
    try:
        response = await exchange.__aenter__()
    except PeerUnreachable:
        return Response("the instance does not answer", 502)
    kept = {name: value for name, value in response.headers.items() if name not in HOP_BY_HOP}
    return StreamResponse(_relayed(exchange, response), response.status, kept)


async def _relayed(exchange: AbstractAsyncContextManager[PeerResponse], response: PeerResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.chunks():
            yield chunk
    finally:
        await exchange.__aexit__(None, None, None)


async def _open_session(instance: Instance, request: Request) -> Response:
    body = await small_body(request, 4096, Unsupported("the question is too long", 413))
    cluster = request.headers.get("concord-cluster", "")
    mac = request.headers.get("concord-mac", "")
    for key in instance.cluster.keys:
        if key.cluster == cluster and mac == sign_opening(key, body):
            question = msgspec.msgpack.decode(body, type=m.SessionQuestion)
            if len(question.nonce) != 16 or len(question.instance) != 32:
                raise Refused(400, "malformed")
            nonce = instance.clock.entropy(16)
            token = new_token(key, question.instance, question.nonce, nonce, instance.clock.now_ms())
            answer = msgspec.msgpack.encode(m.SessionAnswer(instance.catalog.instance, token))
            return Response(answer, headers={"Concord-MAC": sign_opened(key, question.nonce, answer)})
    raise Refused(403, "unauthentic")


async def _authenticate(instance: Instance, request: Request, path: str) -> Asked:
    """Check session, MAC and number. A body that is streamed is proved by its digest instead."""
    session = read_token(request.headers.get("concord-session", ""), instance.cluster.keys)
    sequence = request.headers.get("concord-sequence", "")
    if session.expires_ms < instance.clock.now_ms() or not sequence.isdigit() or len(sequence) > 18:
        raise Refused(401, "expired")
    streamed = path in STREAMED_PATHS and "content-length" not in request.headers
    too_long = Unsupported("the question is too long", 413)
    body = None if streamed else await small_body(request, MAX_QUESTION_BYTES, too_long)
    signed = sign_request(session, request.method, request.scope["path"], int(sequence), body)
    if request.headers.get("concord-mac") != signed:
        raise Refused(403, "unauthentic")
    if not instance.seen_requests.accept(session, int(sequence)):
        raise Refused(403, "replayed")
    return Asked(session, int(sequence), body)


async def _content(instance: Instance, request: Request, digest: Digest) -> Response:
    """Content from this disk only: a blob's file or a manifest's body, from an offset on."""
    body = instance.catalog.queries.body(digest)
    if body is not None:
        return Response(body, headers={"Content-Type": "application/octet-stream"})
    size = instance.store.held_size(digest)
    file = await open_held(instance, digest) if size is not None else None
    if size is None or file is None:
        return Response("not here", 404)
    part = parse_range(request.headers.get("range"), size) if size else None
    first, length = part if part else (0, size)
    headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
    return StreamResponse(instance.store.read(file, first, length), 206 if part else 200, headers)


async def _upload(instance: Instance, request: Request) -> Response:
    """A request for an upload of ours that arrived at another instance."""
    headers = request.headers
    repository = parse_repository(headers.get("concord-repository", ""))
    try:
        upload = open_upload_id(headers.get("concord-upload", ""), repository, instance.upload_keys)
        if upload.owner != instance.catalog.instance:
            raise BlobUploadUnknown("this upload was begun at another instance")
        digest = parse_digest(headers["concord-digest"]) if "concord-digest" in headers else None
        span = _span(headers.get("concord-span"))
        return await carry_out(
            instance, Step(headers.get("concord-method", ""), repository, upload, digest, span, body_stream(request))
        )
    except OciError as error:
        return error_response(error, is_head=False)


def _span(header: str | None) -> Span | None:
    if header is None:
        return None
    first, _, length = header.partition(" ")
    if not first.isdigit() or not length.isdigit():
        raise Malformed("a span that is no two numbers")
    return Span(int(first), int(length))


def _answering(
    question: type[T], respond: Callable[[Instance, Asked, T], Awaitable[object]]
) -> Callable[[Instance, Asked], Awaitable[Response]]:
    """A question as a request handler: decoded before, encoded and signed after."""

    async def handle(instance: Instance, asked: Asked) -> Response:
        answer = await respond(instance, asked, msgspec.msgpack.decode(asked.body or b"", type=question))
        body = msgspec.msgpack.encode(answer)
        return Response(body, headers={"Concord-MAC": sign_answer(asked.session, asked.sequence, 200, body)})

    return handle


async def _hello(instance: Instance, asked: Asked, question: m.Hello) -> m.Hello:
    if question.instance != instance.catalog.instance:
        if question.instance != asked.session.client:
            raise Malformed("a hello in another instance's name")
        instance.cluster.greeted(question)
    return instance.cluster.hello()


async def _changes(instance: Instance, asked: Asked, question: m.ChangesQuestion) -> m.ChangesAnswer:
    return m.ChangesAnswer(*instance.catalog.replica.changes(question.since))


async def _summaries(instance: Instance, asked: Asked, question: m.SummariesQuestion) -> m.SummariesAnswer:
    return m.SummariesAnswer.of(instance.catalog.replica.summaries(question.read()))


async def _names(instance: Instance, asked: Asked, question: m.NamesQuestion) -> m.NamesAnswer:
    return m.NamesAnswer(instance.catalog.replica.names(question.keys))


async def _digests(instance: Instance, asked: Asked, question: m.DigestsQuestion) -> m.DigestsAnswer:
    return m.DigestsAnswer([instance.catalog.replica.digest(name) for name in question.names])


async def _diffs(instance: Instance, asked: Asked, question: m.DiffsQuestion) -> m.DiffsAnswer:
    """What the asker lacks. Documents beyond what one answer may hold are left for the next question."""
    diffs, size = [], 0
    for name, vector in question.documents:
        theirs = decode_vector(vector)
        ours = instance.catalog.replica.state(name)
        if size > MAX_DIFFS_BYTES or all(theirs.get(writer, 0) >= clock for writer, clock in ours.vector.items()):
            diffs.append(m.DiffAnswer.of(ours, b""))
            continue
        try:
            state, update = instance.catalog.replica.state_and_diff(name, theirs)
        except DocumentBroken as error:
            raise Refused(500, f"{name}: {error}") from None
        size += len(update)
        diffs.append(m.DiffAnswer.of(state, update))
    names = [name for name, _ in question.documents]
    return m.DiffsAnswer(diffs, instance.catalog.queries.writers_of(names))


async def _updates(instance: Instance, asked: Asked, question: m.Updates) -> m.UpdatesAnswer:
    """Take in what another instance says we lack. Each update stands for itself."""
    await instance.catalog.database.write(lambda tx: note_writers(tx, question.writers))
    early = []
    for _, update in question.documents:
        decode_delta(update)  # nothing is applied where any is malformed
    for name, update in question.documents:
        try:
            applied = await apply_update(instance.catalog, instance.clock, name, update)
            instance.cluster.advanced(name, applied.vector)
        except Early:
            early.append(name)
        except WriterReused:
            instance.catalog.retire_writer()
            early.append(name)
        except CrdtError as error:
            raise Refused(400, f"refused: {error}") from None
    for body in question.bodies:
        await instance.catalog.database.write(lambda tx, body=body: keep_wanted_body(tx, body))  # type: ignore[misc]
    return m.UpdatesAnswer(early)


async def _facts(instance: Instance, asked: Asked, question: m.FactsQuestion) -> m.FactsAnswer:
    state, facts = instance.catalog.facts(question.name)
    return m.FactsAnswer(encode_vector(state.vector), state.digest, facts)


async def _held(instance: Instance, asked: Asked, question: m.HeldQuestion) -> m.HeldAnswer:
    digest = parse_digest(question.digest)
    size = instance.store.held_size(digest)
    if size is None:
        body = instance.catalog.queries.body(digest)
        size = len(body) if body is not None else None
    return m.HeldAnswer(size)


QUESTIONS: dict[str, Callable[[Instance, Asked], Awaitable[Response]]] = {
    "/hello": _answering(m.Hello, _hello),
    "/changes": _answering(m.ChangesQuestion, _changes),
    "/summaries": _answering(m.SummariesQuestion, _summaries),
    "/names": _answering(m.NamesQuestion, _names),
    "/digests": _answering(m.DigestsQuestion, _digests),
    "/diffs": _answering(m.DiffsQuestion, _diffs),
    "/updates": _answering(m.Updates, _updates),
    "/facts": _answering(m.FactsQuestion, _facts),
    "/held": _answering(m.HeldQuestion, _held),
}

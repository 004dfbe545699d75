"""The client of the requests between instances.

Wraps the transport seam with sessions, MACs, types and a time limit for each request. A member that does not answer is
noted as unreachable for a while (`members.Member.failed`), so that the next requests do not wait for it.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import msgspec

from crdt.errors import Malformed
from registry import __version__
from registry.capabilities import ACCESS, OWN, Abilities
from registry.catalog.access import CommittedAccess
from registry.cluster.membership.members import Member, Members
from registry.cluster.rpc.key_acceptance import KeyAcceptance
from registry.cluster.rpc.keys import ClusterKey
from registry.cluster.rpc.messages import (
    ChunkDigestsRequest,
    ChunkDigestsResponse,
    LocateRequest,
    LocateResponse,
    SessionRequest,
    SessionResponse,
)
from registry.cluster.rpc.sessions import (
    CERTIFICATE_REFUSED,
    KEY_REFUSED,
    NONCE_SIZE,
    REFUSED,
    SESSION_MS,
    VERSION_REFUSED,
    Session,
    is_mac,
    read_token,
    sign_answer,
    sign_opened,
    sign_opening,
    signed_headers,
    token_text,
)
from registry.event_loop.now import now_s
from registry.oci.names import Digest
from registry.ports import Body, Clock, PeerResponse, PeerTransport, PeerUnreachable
from registry.telemetry.request_ids import forwarded_headers
from registry.units import GIB, to_s

T = TypeVar("T")

PREFIX = "/_concord/peer"
REQUEST_TIMEOUT_S = 5.0
SESSION_PROVEN_S = 5.0
"""Time after an authentic answer for which a session counts as valid, so that content is sent in it without a probe."""
NO_CONTENT = Digest("sha256:" + 64 * "0")
MAX_ANSWER_BYTES = GIB  # a document of millions of facts comes in one piece
SESSION_RENEWAL_S = to_s(SESSION_MS) * 0.9  # by our own steady clock: the other side's wall clock may be wrong


class PeerRefused(PeerUnreachable):
    """A peer answered, but the answer is a refusal or malformed."""


class SessionRefused(PeerRefused):
    """A peer does not know the session, or it has expired there."""


class PeerClient:
    """Requests to members, each answered, refused or failed within its time limit."""

    def __init__(
        self,
        transport: PeerTransport,
        members: Members,
        clock: Clock,
        keys: Sequence[ClusterKey],
        access: CommittedAccess,
        abilities: Abilities = OWN,
    ) -> None:
        self._transport = transport
        self._members = members
        self._clock = clock
        self._keys = keys
        self._access = access
        self._capabilities = list(abilities.capabilities)
        self._sessions: dict[tuple[str, str], tuple[Session, float]] = {}
        self._opening: dict[tuple[str, str], asyncio.Lock] = {}
        self._answered_at: dict[str, float] = {}
        """Loop times of the last authentic answers, by address."""
        self._sequence = 0
        self.acceptance = KeyAcceptance()

    async def ask(
        self, member: Member, path: str, request: object, answer: type[T], timeout_s: float = REQUEST_TIMEOUT_S
    ) -> T:
        """POST a request to a member. Raises PeerUnreachable, or PeerRefused for an answer that is none."""
        url = self._members.url(member)
        sent_at = now_s()
        member.pending_since.append(sent_at)
        try:
            with _noted(member):
                async with asyncio.timeout(timeout_s):
                    decoded = await self.ask_url(url, path, request, answer, member.instance)
        finally:
            member.pending_since.remove(sent_at)
        member.answered()
        return decoded

    async def ask_url(self, url: str, path: str, request: object, answer: type[T], instance: str = "") -> T:
        """POST a request to an address, and accept an answer of any member if `instance` is empty. The caller bounds
        the time."""
        body = msgspec.msgpack.encode(request)
        session = await self._session(url, instance)
        try:
            return await self._exchange(url, session, path, "", body, answer)
        except SessionRefused:
            session = await self._session(url, instance)
            return await self._exchange(url, session, path, "", body, answer)

    async def ask_with_content(
        self,
        member: Member,
        path: str,
        request: object,
        body: AsyncIterator[bytes],
        answer: type[T],
        timeout_s: float,
    ) -> T:
        """POST a request about content, which is streamed after it. `timeout_s` bounds every silence but the content's
        own. Raises PeerUnreachable, and what `body` raises."""
        url = self._members.url(member)
        parameters = b64encode(msgspec.msgpack.encode(request)).decode()
        if now_s() > self._answered_at.get(url, 0.0) + SESSION_PROVEN_S:
            await self.held_size(member, NO_CONTENT, REQUEST_TIMEOUT_S)  # renews a session that has become worthless
        with _noted(member):
            async with asyncio.timeout(timeout_s) as limit:
                session = await self._session(url, member.instance, member.beat.incarnation)
                paced = _paced(body, limit, timeout_s)
                decoded = await self._exchange(url, session, path, parameters, paced, answer)
        member.answered()
        return decoded

    async def _exchange(self, url: str, session: Session, path: str, parameters: str, body: Body, answer: type[T]) -> T:
        sequence, signed = self._sign(session, "POST", path, [], parameters, body)
        async with self._transport.request("POST", url + PREFIX + path, signed, body) as response:
            raw = await _read(response)
            if response.status == 401:
                self._forget(session)
                raise SessionRefused(f"{url} does not accept our session")
            if not is_mac(response.headers.get("concord-mac"), sign_answer(session, sequence, response.status, raw)):
                raise PeerRefused(f"{url} answered {response.status} without a valid MAC")
            self._answered_at[url] = now_s()
            if response.status != 200:
                raise PeerRefused(f"{url} answered {response.status}: {raw[:100].decode(errors='replace')}")
        try:
            return msgspec.msgpack.decode(raw, type=answer)
        except msgspec.DecodeError as error:
            raise PeerRefused(f"{url} answered something malformed: {error}") from None

    @asynccontextmanager
    async def stream(
        self, member: Member, path: str, headers: Sequence[tuple[str, str]] = ()
    ) -> AsyncIterator[PeerResponse]:
        """GET content, which is proved by its digest. The wait for the head of the answer is bounded, the rest is the
        caller's to bound. Raises PeerUnreachable."""
        url = self._members.url(member)
        with _noted(member):
            async with asyncio.timeout(REQUEST_TIMEOUT_S) as limit:
                session = await self._session(url, member.instance, member.beat.incarnation)
                _, signed = self._sign(session, "GET", path, list(headers), "", b"")
                async with self._transport.request("GET", url + PREFIX + path, signed) as response:
                    limit.reschedule(None)
                    member.answered()
                    if response.status == 401:
                        self._forget(session)
                    yield response

    async def held_size(
        self, member: Member, digest: Digest, timeout_s: float, quarantined: bool = False
    ) -> int | None:
        """Return the size of a content that a member has on its disk, or None; with `quarantined`, the size of its
        quarantined copy. Raises PeerUnreachable."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer = await self._held(member, LocateRequest(digest, quarantined), timeout_s)
        member.answers_in_s += (loop.time() - begun - member.answers_in_s) * 0.2
        return answer.size

    async def keeps(self, member: Member, digest: Digest, timeout_s: float, retain: bool = False) -> bool:
        """Return whether a member has a content on its disk and stays: a member that leaves relies on other replicas,
        so its own must not be relied on. `retain` tells the member to keep its replica, whatever it was about to do
        with it: this instance is about to leave. Raises PeerUnreachable."""
        answer = await self._held(member, LocateRequest(digest, retain=retain), timeout_s)
        return answer.size is not None and answer.stays

    async def chunk_digests(self, member: Member, digest: Digest, timeout_s: float) -> ChunkDigestsResponse:
        """Return what a member states of the MiBs of a content. Raises PeerUnreachable."""
        return await self.ask(member, "/chunk-digests", ChunkDigestsRequest(digest), ChunkDigestsResponse, timeout_s)

    async def stays(self, member: Member, timeout_s: float) -> bool:
        """Return whether a member stays in the cluster. Raises PeerUnreachable."""
        return (await self._held(member, LocateRequest(NO_CONTENT), timeout_s)).stays

    async def _held(self, member: Member, request: LocateRequest, timeout_s: float) -> LocateResponse:
        return await self.ask(member, "/locate", request, LocateResponse, timeout_s)

    def _sign(
        self, session: Session, method: str, path: str, headers: list[tuple[str, str]], parameters: str, body: Body
    ) -> tuple[int, list[tuple[str, str]]]:
        """Return the request's number, and its headers with those that authenticate it."""
        self._sequence += 1
        whole = body if isinstance(body, bytes) else None
        signed = signed_headers(session, method, PREFIX + path, self._sequence, parameters, whole)
        return self._sequence, [*signed.items(), *forwarded_headers(), *headers]

    def _forget(self, session: Session) -> None:
        self._sessions = {at: kept for at, kept in self._sessions.items() if kept[0] is not session}

    async def _session(self, url: str, instance: str, incarnation: int = 0) -> Session:
        """Return a session with an instance, or with any instance that answers at an address if none is named. `start`
        is its incarnation if known: a session of an earlier one would fail, and content cannot be sent twice."""
        member = self._members.get(instance)
        if member is not None:
            self._require_enforcing(url, member.beat.capabilities)
        at = (url, instance)
        async with self._opening.setdefault(at, asyncio.Lock()):
            now = now_s()
            session, renew_at = self._sessions.get(at, (None, 0.0))
            is_usable = session is not None and now <= renew_at and session.incarnation >= incarnation
            # An instance that was removed goes on under another id, also while a session is being opened.
            while session is None or not is_usable or session.client != self._members.own_instance:
                session, is_usable = await self._open(url, instance), True
                self._sessions[at] = session, now + SESSION_RENEWAL_S
            return session

    def _require_enforcing(self, url: str, capabilities: Collection[str]) -> None:
        """Raise PeerUnreachable for an instance that does not know of access control, while that is enforced: it may
        have taken changes from everyone."""
        if ACCESS not in capabilities and self._access.is_enforced:
            raise PeerUnreachable(f"{url} is of a version that cannot enforce access control")

    async def _open(self, url: str, instance: str) -> Session:
        nonce = self._clock.entropy(NONCE_SIZE)
        request = SessionRequest(self._members.own_instance, nonce, __version__, self._capabilities)
        body = msgspec.msgpack.encode(request)
        headers = [
            ("Concord-For", instance),
            ("Concord-MAC", sign_opening(self._keys[0], body)),
            ("Concord-Cluster", self._keys[0].cluster),
            *forwarded_headers(),
        ]
        async with self._transport.request("POST", url + PREFIX + "/session", headers, body) as response:
            raw = await _read(response)
            mac = response.headers.get("concord-mac")
            if response.status == 403 and response.headers.get(REFUSED.lower()) == KEY_REFUSED:
                self.acceptance.refused(url)
                raise PeerRefused(f"{url} is not of this cluster: it refuses this instance's cluster key")
            if response.status == 403 and response.headers.get(REFUSED.lower()) == VERSION_REFUSED:
                raise PeerRefused(f"{url} enforces access control, which this version does not know of")
            if response.status == 403 and response.headers.get(REFUSED.lower()) == CERTIFICATE_REFUSED:
                raise PeerRefused(f"{url} expects a certificate (--peer-tls-certificate), and this instance has none")
            if response.status != 200 or not is_mac(mac, sign_opened(self._keys[0], nonce, raw)):
                raise PeerRefused(f"{url} is not of this cluster (it answered {response.status})")
        try:
            answer = msgspec.msgpack.decode(raw, type=SessionResponse)
            session = read_token(token_text(answer.token), self._keys)
        except (msgspec.DecodeError, Malformed) as error:
            raise PeerRefused(f"{url} opened no proper session: {error}") from None
        self._require_enforcing(url, answer.capabilities)
        if session.server != self._members.own_instance:  # a list of peers may hold the instance's own address
            self.acceptance.accepted(url, session.server)
        if instance and session.server != instance:
            # Its replacement answers under its own id: asked under both ids, its one replica would count as two.
            raise PeerUnreachable(f"another instance than {instance} answers at {url}")
        return session


@contextmanager
def _noted(member: Member) -> Iterator[None]:
    """Note on a member that a request to it got no answer; one that it refused was answered."""
    try:
        yield
    except TimeoutError:
        member.failed("no answer in time")
        raise PeerUnreachable("no answer in time") from None
    except PeerUnreachable as error:
        if not isinstance(error, PeerRefused):
            member.failed(str(error))
        raise


async def _read(response: PeerResponse) -> bytes:
    parts, size = [], 0
    async for chunk in response.chunks():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise PeerRefused("an answer that is too large")
        parts.append(chunk)
    return b"".join(parts)


async def _paced(body: AsyncIterator[bytes], limit: asyncio.Timeout, timeout_s: float) -> AsyncIterator[bytes]:
    """Yield a body. The time limit is suspended while its source is waited for, and applies while the receiver is."""
    loop = asyncio.get_running_loop()
    limit.reschedule(None)
    async for chunk in body:
        limit.reschedule(loop.time() + timeout_s)
        yield chunk
        limit.reschedule(None)
    limit.reschedule(loop.time() + timeout_s)

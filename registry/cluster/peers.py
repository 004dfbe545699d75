"""Asking another instance.

Wraps the transport seam with sessions, MACs, types and a time limit for each request. A member that does not answer is
noted as unreachable for a while (`members.Member.failed`), so that the next requests do not wait for it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec

from crdt.errors import Malformed
from registry.cluster.keys import ClusterKey
from registry.cluster.members import Member, Members
from registry.cluster.messages import HeldAnswer, HeldQuestion, SessionAnswer, SessionQuestion
from registry.cluster.sessions import (
    NONCE_SIZE,
    SESSION_MS,
    Session,
    read_token,
    sign_answer,
    sign_opened,
    sign_opening,
    sign_request,
    token_text,
)
from registry.names import Digest
from registry.seams import Body, Clock, PeerResponse, PeerTransport, PeerUnreachable

T = TypeVar("T")

PREFIX = "/_concord/peer"
TIMEOUT_S = 5.0
CONNECT_S = 2.0
STALL_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
RENEW_S = SESSION_MS / 1000 * 0.9  # by our own steady clock: the other side's may show another year


class PeerRefused(PeerUnreachable):
    """A peer answered, but not what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Peers:
    """Requests to members, each answered, refused or failed within its time limit."""

    def __init__(self, transport: PeerTransport, members: Members, clock: Clock, keys: Sequence[ClusterKey]) -> None:
        self._transport = transport
        self._members = members
        self._clock = clock
        self._keys = keys
        self._sessions: dict[str, tuple[Session, float]] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._sequence = 0

    async def ask(
        self, member: Member, path: str, question: object, answer: type[T], timeout_s: float = TIMEOUT_S
    ) -> T:
        """POST a question to a member. Raises PeerUnreachable, or PeerRefused for an answer that is none."""
        url = self._members.url(member)
        asked_at = asyncio.get_running_loop().time()
        member.asked_at.append(asked_at)
        try:
            async with asyncio.timeout(timeout_s):
                decoded = await self.ask_url(url, path, question, answer, member.instance)
        except (TimeoutError, PeerUnreachable) as error:
            if not isinstance(error, PeerRefused):
                member.failed()
            raise error if isinstance(error, PeerUnreachable) else PeerUnreachable("no answer in time") from None
        finally:
            member.asked_at.remove(asked_at)
        member.answered()
        return decoded

    async def ask_url(self, url: str, path: str, question: object, answer: type[T], instance: str = "") -> T:
        """POST a question to an address, whoever answers there. The caller bounds the time."""
        body = msgspec.msgpack.encode(question)
        for attempt in (1, 2):
            session = await self._session(url, renew=attempt > 1)
            sequence = self._next_sequence()
            headers = self._headers(session, "POST", PREFIX + path, sequence, body, instance)
            async with self._transport.request("POST", url + PREFIX + path, headers, body) as response:
                raw = await _read(response)
                mac = response.headers.get("concord-mac", "")
                if response.status == 401 and attempt == 1:
                    continue
                if mac != sign_answer(session, sequence, response.status, raw):
                    raise PeerRefused(response.status, f"{url} answered {response.status} without a valid MAC")
                if response.status != 200:
                    raise PeerRefused(response.status, f"{url} answered {response.status}")
                try:
                    return msgspec.msgpack.decode(raw, type=answer)
                except msgspec.DecodeError as error:
                    raise PeerRefused(response.status, f"{url} answered something malformed: {error}") from None
        raise PeerRefused(401, f"{url} does not accept our sessions")

    @asynccontextmanager
    async def stream(
        self,
        member: Member,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: Body = b"",
        timeout_s: float = TIMEOUT_S,
    ) -> AsyncIterator[PeerResponse]:
        """A request whose body or answer is content. `timeout_s` bounds the wait for the head of the answer, unless a
        body is streamed. Raises PeerUnreachable."""
        url = self._members.url(member)
        whole = body if isinstance(body, bytes) else None
        try:
            async with asyncio.timeout(timeout_s) as limit:
                session = await self._session(url)
                signed = self._headers(session, method, PREFIX + path, self._next_sequence(), whole, member.instance)
                if whole is None:
                    limit.reschedule(None)
                async with self._transport.request(method, url + PREFIX + path, [*signed, *headers], body) as response:
                    limit.reschedule(None)
                    member.answered()
                    if response.status == 401:
                        self._sessions.pop(url, None)
                    yield response
        except TimeoutError:
            member.failed()
            raise PeerUnreachable("no answer in time") from None
        except PeerUnreachable as error:
            if not isinstance(error, PeerRefused):
                member.failed()
            raise

    async def held_size(self, member: Member, digest: Digest, timeout_s: float) -> int | None:
        """The size of a content that a member has on its disk, or None. Raises PeerUnreachable."""
        return (await self.ask(member, "/held", HeldQuestion(digest), HeldAnswer, timeout_s)).size

    def _headers(
        self, session: Session, method: str, target: str, sequence: int, body: bytes | None, instance: str
    ) -> list[tuple[str, str]]:
        return [
            ("Concord-Session", session.token),
            ("Concord-Sequence", str(sequence)),
            ("Concord-MAC", sign_request(session, method, target, sequence, body)),
            ("Concord-For", instance),
        ]

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    async def _session(self, url: str, renew: bool = False) -> Session:
        lock = self._opening.setdefault(url, asyncio.Lock())
        async with lock:
            now = asyncio.get_running_loop().time()
            session, renew_at = self._sessions.get(url, (None, 0.0))
            if session is None or renew or now > renew_at:
                session = await self._open(url)
                self._sessions[url] = session, now + RENEW_S
            return session

    async def _open(self, url: str) -> Session:
        nonce = self._clock.entropy(NONCE_SIZE)
        body = msgspec.msgpack.encode(SessionQuestion(self._members.own_instance, nonce))
        headers = [("Concord-MAC", sign_opening(self._keys[0], body)), ("Concord-Cluster", self._keys[0].cluster)]
        async with self._transport.request("POST", url + PREFIX + "/session", headers, body) as response:
            raw = await _read(response)
            mac = response.headers.get("concord-mac", "")
            if response.status != 200 or mac != sign_opened(self._keys[0], nonce, raw):
                raise PeerRefused(response.status, f"{url} is not of this cluster (it answered {response.status})")
        try:
            answer = msgspec.msgpack.decode(raw, type=SessionAnswer)
            return read_token(token_text(answer.token), self._keys)
        except (msgspec.DecodeError, Malformed) as error:
            raise PeerRefused(200, f"{url} opened no proper session: {error}") from None


async def _read(response: PeerResponse) -> bytes:
    parts, size = [], 0
    async for chunk in response.chunks():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise PeerRefused(response.status, "an answer that is too large")
        parts.append(chunk)
    return b"".join(parts)

"""One bound on the bodies of answers to clients that are in memory while they are sent.

A manifest, or a list, is up to 4 MiB that stay in memory until the client has read them. So there is a bound for all of
them together, as for manifests that are received (`registry.storage.manifest_memory`). An answer beyond it waits for
room, without its body, for a while, and is then refused with 429. A client that reads slowly is served as long as there
is room. When there is none, the answer that has been on its way for longest, and for more than a moment, is cut off.

Small answers are not counted: a connection holds no more than one of them, and about as much in the server's buffers.
"""

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from registry.errors import TooManyAnswers
from registry.event_loop.now import now_s
from registry.http.oci.answers import CutOff
from registry.units import KIB, MIB

MAX_BYTES = 64 * MIB
COUNTED_BYTES = 64 * KIB
PIECE_BYTES = 64 * KIB
"""Bytes that are passed to the server at once. It then waits until most of them were read."""
MIN_RESPONSE_S = 5.0
"""No response is cut off before this time: 4 MiB in it are less than 10 Mbit/s."""
BUDGET_TIMEOUT_S = 10.0
"""Time that a response waits for memory before it is refused."""
BUDGET_POLL_S = 0.25


class _Answer:
    """One response that is being sent."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.is_preempted = False
        self.timeout = asyncio.timeout(None)

    def preempt(self, now: float) -> None:
        self.is_preempted = True
        self.timeout.reschedule(now)


class ResponseMemoryBudget:
    """A bound on the memory of all responses that one instance is sending."""

    def __init__(self) -> None:
        self._answers: dict[_Answer, None] = {}
        """In the order in which they began."""
        self._freed = asyncio.Event()
        self.held_bytes = 0
        self.cut_off = 0
        """Responses that were preempted since the start."""

    def has_room(self, size_bytes: int) -> bool:
        return size_bytes <= COUNTED_BYTES or self.held_bytes + size_bytes <= MAX_BYTES

    async def wait_for_room(self, size_bytes: int) -> None:
        """Return once there is room for an answer, which may be gone again in the next moment. Raises
        TooManyAnswers."""
        until = now_s() + BUDGET_TIMEOUT_S
        while not self.has_room(size_bytes):
            if now_s() >= until:
                raise TooManyAnswers("this instance is sending as much as it takes into memory; ask again")
            self._preempt_oldest()
            self._freed.clear()
            try:
                async with asyncio.timeout(BUDGET_POLL_S):
                    await self._freed.wait()
            except TimeoutError:
                pass

    def _preempt_oldest(self) -> None:
        oldest = next(iter(self._answers), None)
        if oldest is not None and not oldest.is_preempted and now_s() - oldest.begun >= MIN_RESPONSE_S:
            oldest.preempt(now_s())

    async def send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response, counted until the client has read most of it. Raises CutOff if it is preempted."""
        body = bytes(response.body)
        if len(body) <= COUNTED_BYTES:
            await response(scope, receive, send)
            return
        answer = _Answer(now_s())
        self._answers[answer] = None
        self.held_bytes += len(body)
        try:
            async with answer.timeout:
                await send(
                    {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
                )
                for at in range(0, len(body), PIECE_BYTES):
                    await send({"type": "http.response.body", "body": body[at : at + PIECE_BYTES], "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            if not answer.is_preempted:
                raise
            self.cut_off += 1
            raise CutOff("its client read it slowly, and others waited for its room in memory") from None
        finally:
            del self._answers[answer]
            self.held_bytes -= len(body)
            self._freed.set()

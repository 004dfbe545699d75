"""Read repair: asking members that may know more before a miss is answered (as Dynamo and Cassandra do it on reads).

Misses are common, and cheap to cause. So one member is asked once about one document, however many misses wait for the
answer, and the answer counts for a moment. Documents that come up while enough requests to a member are under way
share the next request. A client that asks for missing content as fast as it can costs a member a bounded number of
requests.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from registry.cluster.membership.members import Member
from registry.cluster.transfer.locator import MISS_BOUND_S
from registry.event_loop.now import now_s

REMEMBERED_S = 0.1
"""Seconds for which an answer counts, from its request. A push of another site in this time is found by a later miss.
Within a site no read depends on that, since a push is answered when all its members have it."""
REQUESTS_AT_ONCE = 4
"""Number of requests to one member. A request takes a round trip, and a miss is not to wait for two."""
DOCUMENTS_AT_ONCE = 64
MAX_PENDING = 10_000

Learn = Callable[[Member, list[str]], Awaitable[bool]]


class _RequestQueue:
    """The documents to ask one member about, and those that it was asked about."""

    def __init__(self) -> None:
        self.pending: dict[str, asyncio.Future[None]] = {}
        self.gathering: list[str] = []
        """Pending documents that no request includes yet."""
        self.under_way = 0
        self.sent_at: OrderedDict[str, float] = OrderedDict()
        """For each document with a recent answer, the loop time of its request, the oldest first."""

    def remember(self, document: str, sent_at: float) -> None:
        self.sent_at.pop(document, None)
        self.sent_at[document] = sent_at
        while now_s() - next(iter(self.sent_at.values())) >= REMEMBERED_S:
            self.sent_at.popitem(last=False)
            if not self.sent_at:
                return


class ReadRepair:
    """The requests of one instance. `learn` asks a member for what this instance lacks of some documents, takes it in,
    and returns whether the member answered."""

    def __init__(self, learn: Learn) -> None:
        self._learn = learn
        self._members: dict[str, _RequestQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests = 0

    async def before_miss(self, document: str, members: Iterable[Member]) -> None:
        """Take in what members know more of a document, as far as answers arrive within `MISS_BOUND_S`.

        A member that is known to be unreachable, or has not answered an earlier request yet, is not waited for.
        """
        answers = [answer for member in members if member.prompt and (answer := self._answer(member, document))]
        try:
            async with asyncio.timeout(MISS_BOUND_S):
                for answer in answers:
                    await asyncio.shield(answer)
        except TimeoutError:
            pass

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _answer(self, member: Member, document: str) -> "asyncio.Future[None] | None":
        """Return the future of a member's answer; None when it has just answered, or too many documents are pending."""
        queue = self._members.setdefault(member.instance, _RequestQueue())
        if document in queue.pending:
            return queue.pending[document]
        if now_s() - queue.sent_at.get(document, -REMEMBERED_S) < REMEMBERED_S or len(queue.pending) >= MAX_PENDING:
            return None
        queue.pending[document] = asyncio.get_running_loop().create_future()
        queue.gathering.append(document)
        if queue.under_way < REQUESTS_AT_ONCE:
            queue.under_way += 1
            task = asyncio.create_task(self._ask(member, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return queue.pending[document]

    async def _ask(self, member: Member, queue: _RequestQueue) -> None:
        """Ask about the documents that have gathered, until none are left."""
        try:
            while queue.gathering:
                documents = queue.gathering[:DOCUMENTS_AT_ONCE]
                del queue.gathering[:DOCUMENTS_AT_ONCE]
                sent_at, has_answered = now_s(), False
                self.requests += 1
                try:
                    has_answered = await self._learn(member, documents)
                finally:
                    for document in documents:
                        if has_answered:
                            queue.remember(document, sent_at)
                        answer = queue.pending.pop(document)
                        if not answer.done():
                            answer.set_result(None)
        finally:
            queue.under_way -= 1

"""Read repair: asking members that may know more before a miss is answered (as Dynamo and Cassandra do it on reads).

Misses are common, and cheap to cause. So one member is asked once about one document, however many misses wait for the
answer, and the answer counts for a moment. Documents that come up while enough questions to a member are under way
share the next question. A client that asks for missing content as fast as it can costs a member a bounded number of
questions.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from registry.cluster.membership.members import Member
from registry.cluster.transfer.locator import MISS_BOUND_S
from registry.event_loop.now import now_s

REMEMBERED_S = 0.1
"""Seconds for which an answer counts, from its question. A push of another site in this time is found by a later miss.
Within a site no read depends on that, since a push is answered when all its members have it."""
QUESTIONS_AT_ONCE = 4
"""Number of questions to one member. A question takes a round trip, and a miss is not to wait for two."""
DOCUMENTS_AT_ONCE = 64
MAX_PENDING = 10_000

Learn = Callable[[Member, list[str]], Awaitable[bool]]


class _Member:
    """The questions to one member."""

    def __init__(self) -> None:
        self.pending: dict[str, asyncio.Future[None]] = {}
        self.gathering: list[str] = []
        """Pending documents that no question includes yet."""
        self.under_way = 0
        self.asked_at: OrderedDict[str, float] = OrderedDict()
        """For each document with a recent answer, the loop time of its question, the oldest first."""

    def remember(self, document: str, asked_at: float) -> None:
        self.asked_at.pop(document, None)
        self.asked_at[document] = asked_at
        while now_s() - next(iter(self.asked_at.values())) >= REMEMBERED_S:
            self.asked_at.popitem(last=False)
            if not self.asked_at:
                return


class ReadRepair:
    """The questions of one instance. `learn` asks a member for what this instance lacks of some documents, takes it in,
    and returns whether the member answered."""

    def __init__(self, learn: Learn) -> None:
        self._learn = learn
        self._members: dict[str, _Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.questions = 0

    async def before_miss(self, document: str, members: Iterable[Member]) -> None:
        """Take in what members know more of a document, as far as answers arrive within `MISS_BOUND_S`.

        A member that is known to be unreachable, or has not answered an earlier question yet, is not waited for.
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
        asked = self._members.setdefault(member.instance, _Member())
        if document in asked.pending:
            return asked.pending[document]
        if now_s() - asked.asked_at.get(document, -REMEMBERED_S) < REMEMBERED_S or len(asked.pending) >= MAX_PENDING:
            return None
        asked.pending[document] = asyncio.get_running_loop().create_future()
        asked.gathering.append(document)
        if asked.under_way < QUESTIONS_AT_ONCE:
            asked.under_way += 1
            task = asyncio.create_task(self._ask(member, asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return asked.pending[document]

    async def _ask(self, member: Member, asked: _Member) -> None:
        """Ask about the documents that have gathered, until none are left."""
        try:
            while asked.gathering:
                documents = asked.gathering[:DOCUMENTS_AT_ONCE]
                del asked.gathering[:DOCUMENTS_AT_ONCE]
                asked_at, has_answered = now_s(), False
                self.questions += 1
                try:
                    has_answered = await self._learn(member, documents)
                finally:
                    for document in documents:
                        if has_answered:
                            asked.remember(document, asked_at)
                        answer = asked.pending.pop(document)
                        if not answer.done():
                            answer.set_result(None)
        finally:
            asked.under_way -= 1

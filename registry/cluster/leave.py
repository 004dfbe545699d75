"""Leaving for good: what only this instance holds is handed over first.

While it leaves an instance keeps serving, takes no more copies, and is not ready, so that balancers send requests
elsewhere. When everything that is linked is held by somebody else too, it says that it is gone for good, and ends.
"""

import asyncio
import logging

from registry.catalog.collection import linked_content
from registry.catalog.database import Database
from registry.cluster.locate import Locate
from registry.cluster.members import Member, Members
from registry.cluster.messages import TakeAnswer, TakeQuestion
from registry.cluster.peers import Peers
from registry.cluster.ranking import ranked, spread
from registry.names import Digest
from registry.seams import PeerUnreachable

log = logging.getLogger("concord.leave")

PAGE = 200
AGAIN_S = 2.0
ANSWER_S = 6.0


class Leave:
    """See the module."""

    def __init__(self, database: Database, members: Members, locate: Locate, peers: Peers) -> None:
        self._database = database
        self._members = members
        self._locate = locate
        self._peers = peers
        self.under_way = False
        self.handed_over = 0
        self.left = 0
        """Contents that nobody else holds, as far as was seen in the pass before."""

    async def hand_over(self) -> None:
        """Return once somebody else holds everything that is linked and held here."""
        self.under_way = True
        while True:
            self.left = await self._pass()
            if not self.left and self._members.reachable():
                return
            await asyncio.sleep(AGAIN_S)

    async def _pass(self) -> int:
        """Hand over what only we hold. Answers how much of it there still is."""
        left, last = 0, ""
        while page := linked_content(self._database, last, PAGE):
            for digest, size in page:
                if await self._locate.anywhere(digest) is None:
                    taken = await self._give(digest, size)
                    self.handed_over += taken
                    left += not taken
            last = page[-1].digest
        return left

    async def _give(self, digest: Digest, size: int) -> bool:
        """Have somebody take a content. False when nobody does now."""
        for one in spread(ranked(digest, self._members.keepers())):
            member = self._members.get(one.instance)
            if member is not None and member.reachable and await self._is_taken(member, TakeQuestion(digest, size)):
                return True
        return False

    async def _is_taken(self, member: Member, question: TakeQuestion) -> bool:
        try:
            while True:
                answer = await self._peers.ask(member, "/take", question, TakeAnswer, ANSWER_S)
                if answer.held or not answer.under_way:
                    return answer.held
        except PeerUnreachable as error:
            log.warning("%s did not take %s: %s", member.instance, question.digest, error)
            return False

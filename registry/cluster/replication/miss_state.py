"""The state that decides whether a miss may be answered without a request to another member.

A miss is answered at once when no member can know more: this instance has the read lease, so that it has every write
that its own site has acknowledged (`site_lease`), no member that can be reached has announced changes that are missing
here, and those of the own site have announced the state digest that is also this instance's. The digest tells of what a
neighbour has got otherwise than by changes of its own, such as from a member that has left. All processes of the
instance see that in memory that they share (`read_lease`), so that any of them answers.
"""

import asyncio
from typing import Protocol

from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.read_lease import ReadLease

INTERVAL_S = 0.05
"""Seconds after which it is noticed that changes have been applied, or that a member can be reached again. A heartbeat
that names missing changes is noticed at once."""


class StateDigest(Protocol):
    """The replica's digest."""

    def root(self) -> bytes:
        """Return the state digest."""


class MissState:
    """The state of one instance, as its primary sees it."""

    def __init__(self, members: Members, lease: ReadLease, replica: StateDigest) -> None:
        self._members = members
        self._lease = lease
        self._replica = replica

    def members_to_ask(self) -> list[Member]:
        """Return the members to ask before a miss is answered."""
        if self._lease.is_valid:
            return self._members_that_may_know_more()
        near = {member.instance for member in self._members.of_own_site()}
        return [member for member in self._members.reachable() if member.instance in near or member.ahead]

    def _members_that_may_know_more(self) -> list[Member]:
        """Return the members that may know what an instance with the read lease does not."""
        near, root = {member.instance for member in self._members.of_own_site()}, self._replica.root()
        return [
            member
            for member in self._members.reachable()
            if member.ahead or (member.instance in near and member.beat.root != root)
        ]

    def update(self) -> None:
        """Publish whether there is no member to ask under the lease."""
        self._lease.set_allows_miss(not self._members_that_may_know_more())

    async def run(self) -> None:
        """Publish it at intervals, for ever."""
        while True:
            self.update()
            await asyncio.sleep(INTERVAL_S)

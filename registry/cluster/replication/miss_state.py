"""The state that decides whether a miss may be answered without a request to another member.

A miss is answered at once when no member can know more: this instance has the read lease, so that it has every write
that its own site has acknowledged (`site_lease`), and no member that can be reached has announced changes that are
missing here. All processes of the instance see that in memory that they share (`read_lease`), so that any of them
answers.
"""

import asyncio

from registry.cluster.membership.members import Member, Members
from registry.cluster.replication.read_lease import ReadLease

INTERVAL_S = 0.05
"""Seconds after which it is noticed that changes have been applied, or that a member can be reached again. A heartbeat
that names missing changes is noticed at once."""


class MissState:
    """The state of one instance, as its primary sees it."""

    def __init__(self, members: Members, lease: ReadLease) -> None:
        self._members = members
        self._lease = lease

    def members_to_ask(self) -> list[Member]:
        """Return the members to ask before a miss is answered."""
        reachable = self._members.reachable()
        if self._lease.is_valid:
            return [member for member in reachable if member.ahead]
        near = {member.instance for member in self._members.of_own_site()}
        return [member for member in reachable if member.instance in near or member.ahead]

    def update(self) -> None:
        """Publish whether no member that can be reached is ahead."""
        self._lease.set_no_member_ahead(not any(member.ahead for member in self._members.reachable()))

    async def run(self) -> None:
        """Publish it at intervals, for ever."""
        while True:
            self.update()
            await asyncio.sleep(INTERVAL_S)

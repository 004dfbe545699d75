"""Joining: an instance that starts catches up with its site before it is ready.

An instance without other members at its site is alone there, and is ready after a moment in which it could have heard
of one. Clients wait for the end of the join, but not for longer than `CLIENTS_WAIT_S`: after that they are answered
with what is here. An instance that has no bus, no peers and no members is a registry of its own, and joins nothing.
"""

import asyncio

from registry.catalog.catalog import Catalog
from registry.cluster.membership.discovery import Discovery
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.members import HEARTBEAT_S, Members
from registry.cluster.membership.membership_log import MembershipLog
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.site_lease import SiteLease
from registry.event_loop.now import now_s

JOIN_POLL_S = 0.1
JOIN_ALONE_S = 1.0
JOIN_UNREACHED_S = 10.0
JOIN_TIMEOUT_S = 30.0
CLIENTS_WAIT_S = 10.0
CLIENTS_WAIT_IN_PLACE_S = 0.5
"""Seconds for which clients wait after a process has died, so that another takes its place within a second."""


class Join:
    """The join of this instance."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        catalog: Catalog,
        members: Members,
        discovery: Discovery,
        anti_entropy: AntiEntropy,
        site_lease: SiteLease,
        membership_log: MembershipLog,
        has_bus: bool,
    ) -> None:
        self._lifecycle = lifecycle
        self._catalog = catalog
        self._members = members
        self._discovery = discovery
        self._anti_entropy = anti_entropy
        self._site_lease = site_lease
        self._membership_log = membership_log
        self._has_bus = has_bus
        self._began = now_s()

    def limit_clients_wait(self, in_place: bool) -> None:
        """Begin the time for which clients wait at most: a moment for a process that is `in_place` of a dead one."""
        wait_s = CLIENTS_WAIT_IN_PLACE_S if in_place else CLIENTS_WAIT_S
        asyncio.get_running_loop().call_later(wait_s, self._answer_clients)

    async def run(self) -> None:
        """Catch up with the own site before being ready, unless this instance is alone there."""
        standalone = not self._has_bus and not self._discovery.addresses and not self._members.all()
        if not standalone:
            await self._catch_up_with_site()
        self._lifecycle.has_joined = True
        if not standalone:
            self._membership_log.joined()
        self._answer_clients()

    async def _catch_up_with_site(self) -> None:
        loop, begun, members = asyncio.get_running_loop(), self._began, self._members
        known = any(member.beat.site == members.own_site for member in members.all())
        alone_s = HEARTBEAT_S + JOIN_ALONE_S if known else JOIN_ALONE_S  # by then each live member has been heard
        while loop.time() < begun + JOIN_TIMEOUT_S:
            near = members.of_own_site()
            reachable = [member for member in near if member.reachable]
            alone = not near and not members.has_unproven_at_own_site()
            if not alone and not reachable and loop.time() > begun + JOIN_UNREACHED_S:
                return
            if reachable and not self._catalog.replica.commit_number():
                await self._anti_entropy.catch_up_soon(min(reachable, key=lambda member: member.beat.joining))
            caught_up = reachable and all(
                await asyncio.gather(*(self._anti_entropy.catch_up_soon(m) for m in reachable))
            )
            # The member that is heard first may have just started, too, and have nothing yet.
            caught_up = caught_up and not self._discovery.introductions.pending
            if caught_up and all(m in reachable for m in members.of_own_site() if m.reachable):
                return
            if alone and loop.time() > begun + alone_s:
                return
            await asyncio.sleep(JOIN_POLL_S)

    def _answer_clients(self) -> None:
        self._lifecycle.answers_clients.set()
        self._site_lease.request_renewal()

"""Heartbeats: the state of this instance, told to all members every two seconds.

A new member gets one at once, so that it does not have to wait for its turn.
"""

import asyncio

from registry import __version__
from registry.audit.heads import AuditHeads
from registry.capabilities import Abilities
from registry.catalog.catalog import Catalog
from registry.cluster.membership.incarnation import Incarnation
from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.members import HEARTBEAT_S, Members
from registry.cluster.membership.removal import Removals
from registry.cluster.membership.store import MemberStore
from registry.cluster.replication.anti_entropy import AntiEntropy
from registry.cluster.replication.frame_sender import FrameSender
from registry.cluster.rpc.messages import Heartbeat
from registry.config import Config
from registry.ports import Clock
from registry.storage.space import DiskSpace

GREETING_DELAY_S = 0.01
"""Seconds for each live member by which a greeting waits, so that many instances that start together are not answered
by all members each time."""


class OwnHeartbeat:
    """The state of this instance as its next heartbeat tells it."""

    def __init__(
        self,
        config: Config,
        abilities: Abilities,
        catalog: Catalog,
        clock: Clock,
        members: Members,
        incarnation: Incarnation,
        lifecycle: Lifecycle,
        anti_entropy: AntiEntropy,
        space: DiskSpace,
        audit: AuditHeads,
    ) -> None:
        self._config = config
        self._abilities = abilities
        self._catalog = catalog
        self._clock = clock
        self._members = members
        self._incarnation = incarnation
        self._lifecycle = lifecycle
        self._anti_entropy = anti_entropy
        self._space = space
        self._audit = audit

    def make(self) -> Heartbeat:
        """Return the heartbeat of this moment."""
        config = self._config
        return Heartbeat(
            site=config.site,
            advertise=config.own_url,
            advertise_site=config.advertise_site,
            version=__version__,
            incarnation=self._incarnation.number,
            published_seq=self._incarnation.published_seq,
            commit=self._catalog.replica.commit_number(),
            root=self._catalog.replica.root(),
            applied={m.instance: m.applied_of_incarnation for m in self._members.of_own_site()},
            joining=not self._lifecycle.has_joined or self._anti_entropy.is_bootstrapping,
            proxy=config.proxy_instance or self._lifecycle.is_leaving,
            name=config.instance_name,
            policy=config.rules.digest,
            now_ms=self._clock.now_ms(),
            disk=(self._space.free_bytes, self._space.total_bytes),
            capabilities=list(self._abilities.capabilities),
            access=self._catalog.access.digest,
            audit={process: (head.number, head.hash) for process, head in self._audit.known.items()},
        )


class Heartbeats:
    """Publishes the heartbeats of this instance."""

    def __init__(
        self, own_heartbeat: OwnHeartbeat, sender: FrameSender, members: Members, removals: Removals, store: MemberStore
    ) -> None:
        self._own_heartbeat = own_heartbeat
        self._sender = sender
        self._members = members
        self._removals = removals
        self._store = store
        self._greeting: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Publish a heartbeat every two seconds, for ever: under the right id, and with what was learned saved."""
        while True:
            await self._removals.take_note()
            self.publish()
            await self._store.save()
            await asyncio.sleep(HEARTBEAT_S)

    def publish(self) -> None:
        """Publish a heartbeat now."""
        self._sender.beat(self._own_heartbeat.make())

    def greet(self) -> None:
        """Publish a heartbeat soon, for a new member."""
        if self._greeting is None:
            wait_s = min(GREETING_DELAY_S * len(self._members.live()), HEARTBEAT_S)
            self._greeting = asyncio.get_running_loop().call_later(wait_s, self._greet)

    def close(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()

    def _greet(self) -> None:
        self._greeting = None
        self.publish()

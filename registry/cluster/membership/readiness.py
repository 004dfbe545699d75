"""Readiness: the conditions under which balancers may send requests to this instance.

An instance is ready while it shows what its site shows. It has joined and is not leaving; it may hold a read lease
(`site_lease`), and no member of its site is known to have more than it for long (`heartbeat_reactions`); its cluster
key is not refused by all others; and its address reaches it. `registry.instance` adds that it is not draining and
understands every document that concerns all repositories.
"""

from registry.cluster.membership.lifecycle import Lifecycle
from registry.cluster.membership.reachability import Reachability
from registry.cluster.replication.heartbeat_reactions import HeartbeatReactions
from registry.cluster.replication.site_lease import SiteLease
from registry.cluster.rpc.client import PeerClient


class Readiness:
    """The readiness of this instance, as far as its cluster decides on it."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        peers: PeerClient,
        reachability: Reachability,
        site_lease: SiteLease,
        reactions: HeartbeatReactions,
    ) -> None:
        self._lifecycle = lifecycle
        self._peers = peers
        self._reachability = reachability
        self._site_lease = site_lease
        self._reactions = reactions

    @property
    def is_ready(self) -> bool:
        if self._peers.acceptance.is_wrong or self._reachability.is_in_doubt:
            return False
        serves = self._lifecycle.has_joined and not self._lifecycle.is_leaving
        return serves and self._site_lease.is_in_step and not self._reactions.lags_site()

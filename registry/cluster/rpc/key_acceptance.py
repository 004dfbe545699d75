"""Cluster key acceptance: which addresses accept the key of this instance, and which refuse it.

An instance that was started with another cluster key than its neighbours hears none of their frames, so it would look
like an instance that is alone, stay ready, and answer 404 for everything the others hold. A refusal is the only
evidence, and it is not authentic: a refusal cannot be signed with a key that both sides do not share. Acceptance is
authentic. So one acceptance in this incarnation outweighs any number of refusals, and one neighbour with a wrong key,
or a stranger at a configured address, cannot take a working instance out of its balancer.
"""

from collections.abc import Iterable

from registry.event_loop.now import now_s
from registry.telemetry.event_log import EventLog
from registry.telemetry.events import LogEvent

log = EventLog("concord.cluster")

LOG_INTERVAL_S = 60.0
"""Seconds between two log lines of a refusal that goes on: operators see it in the last lines of a log."""
MAX_REFUSING = 1000
"""Number of addresses to remember: the bound of the members. Each was configured, or a member advertised it."""


class KeyAcceptance:
    """The evidence of this incarnation about its own key. Owned by `PeerClient`, which opens all sessions."""

    def __init__(self) -> None:
        self._accepting: set[str] = set()
        self._refusing: dict[str, float] = {}
        """Addresses, and when their refusal was logged last (loop time)."""
        self._presented_at = -LOG_INTERVAL_S

    @property
    def is_wrong(self) -> bool:
        """Return whether at least one address has refused the key and no member has accepted it."""
        return bool(self._refusing) and not self._accepting

    @property
    def accepting(self) -> int:
        """Return how many other instances have accepted the key in this incarnation."""
        return len(self._accepting)

    def refusing(self) -> list[str]:
        """Return the addresses that have refused the key and not accepted it since."""
        return sorted(self._refusing)

    def accepted(self, url: str, instance: str) -> None:
        """Note that another instance has proved that it has the key."""
        self._accepting.add(instance)
        if self._refusing.pop(url, None) is not None:
            log.info(LogEvent.CLUSTER_KEY_ACCEPTED, "%(address)s accepts this instance's cluster key now", address=url)

    def refused(self, url: str) -> None:
        """Note that whatever answers at an address refuses the key, and log it once a minute."""
        now = now_s()
        if url not in self._refusing and len(self._refusing) >= MAX_REFUSING:
            return
        if now < self._refusing.get(url, now - LOG_INTERVAL_S) + LOG_INTERVAL_S:
            return
        self._refusing[url] = now
        if self.is_wrong:
            log.error(
                LogEvent.CLUSTER_KEY_REJECTED_BY_ALL,
                "wrong cluster key: %(address)s refuses it and no member accepts it, so this instance is not ready; "
                "set CONCORD_CLUSTER_KEY to the key of the other instances and start it again",
                address=url,
            )
        else:
            log.error(
                LogEvent.CLUSTER_KEY_REJECTED,
                "%(address)s refuses the cluster key of this instance, which %(accepted_by)d other instances accept: "
                "the instance there has another CONCORD_CLUSTER_KEY",
                address=url,
                accepted_by=len(self._accepting),
            )

    def presented(self, client: str) -> None:
        """Note that a client has asked for a session with a key that this instance does not have, and log it once a
        minute. Anyone can cause this, so nothing else follows from it."""
        now = now_s()
        if now >= self._presented_at + LOG_INTERVAL_S:
            self._presented_at = now
            log.error(
                LogEvent.PEER_KEY_REJECTED,
                "refused an instance at %(client)s: it signs with another cluster key; "
                "its CONCORD_CLUSTER_KEY or the one of this instance is wrong",
                client=client or "an unknown address",
            )

    def retain(self, urls: Iterable[str]) -> None:
        """Drop refusals of addresses that are asked no more, such as those of members that were removed."""
        current = set(urls)
        self._refusing = {url: at for url, at in self._refusing.items() if url in current}
